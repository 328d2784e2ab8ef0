// An ordinary net/http program but for its last line: isopod.Serve is http.ListenAndServe.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	isopod "github.com/isopod-cloud/isopod/sdk/go"
)

var started = time.Now()

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello from Go!")
	})
	mux.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{
			"hello":    r.PathValue("name"),
			"greeting": os.Getenv("GREETING"),
		})
	})
	mux.HandleFunc("POST /upper", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		io.WriteString(w, strings.ToUpper(string(data)))
	})
	// Ten goroutines that wait at the same time.
	mux.HandleFunc("GET /squares", func(w http.ResponseWriter, r *http.Request) {
		var group sync.WaitGroup
		squares := make([]int, 10)
		for at := range squares {
			group.Add(1)
			go func() {
				defer group.Done()
				time.Sleep(10 * time.Millisecond)
				squares[at] = at * at
			}()
		}
		group.Wait()
		fmt.Fprintln(w, squares)
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		for _, word := range []string{"one", "two", "three"} {
			fmt.Fprintln(w, word)
			w.(http.Flusher).Flush()
		}
	})
	log.Printf("set up in %v", time.Since(started).Round(time.Millisecond))
	log.Fatal(isopod.Serve(mux))
}
