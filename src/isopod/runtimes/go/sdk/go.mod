module github.com/isopod-cloud/isopod/sdk/go

go 1.21
