module example/kitchen

go 1.24
