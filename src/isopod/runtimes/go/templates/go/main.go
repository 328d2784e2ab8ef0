package main

import (
	"fmt"
	"log"
	"net/http"

	isopod "github.com/isopod-cloud/isopod/sdk/go"
)

func main() {
	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello from Go!")
	})
	// In place of http.ListenAndServe. main runs once, when the app is deployed.
	log.Fatal(isopod.Serve(nil))
}
