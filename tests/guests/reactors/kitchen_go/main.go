// A program with everything that the Go package offers.
package main

import (
	crypto "crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math/rand"
	random "math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	isopod "github.com/isopod-cloud/isopod/sdk/go"
)

var (
	count   int
	hooked  string
	since   = time.Now()
	session = map[string]int{"made": 1}
)

func main() {
	if os.Getenv("KEY") != "" {
		log.Fatal("there are settings")
	}
	fmt.Println("setting up")
	isopod.OnStart(func() { hooked = os.Getenv("KEY") })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		count++
		w.Header().Set("X-Two", fmt.Sprint(r.Header["X-Two"]))
		w.Header().Set("X-Bad", "a\r\nset-cookie: b")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", r.URL.RawQuery, " ", r.Host, " ",
			r.RemoteAddr, " ", r.Proto, " ", hooked, " ", os.Getenv("KEY"), " ", count)
	})
	http.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		io.Copy(w, r.Body)
	})
	http.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		for at := 0; at < 300; at++ {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				log.Print("gone: ", err, " ", r.Context().Err())
				return
			}
		}
	})
	http.HandleFunc("/random", func(w http.ResponseWriter, r *http.Request) {
		secret := make([]byte, 8)
		crypto.Read(secret)
		fmt.Fprintln(w, rand.Int63(), random.Uint64(), hex.EncodeToString(secret))
		fmt.Fprint(w, time.Since(since).Milliseconds())
	})
	http.HandleFunc("/together", func(w http.ResponseWriter, r *http.Request) {
		var group sync.WaitGroup
		began := time.Now()
		for range 100 {
			group.Add(1)
			go func() { defer group.Done(); time.Sleep(30 * time.Millisecond) }()
		}
		group.Wait()
		fmt.Fprint(w, time.Since(began) < time.Second)
	})
	http.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) {
		var nothing map[string]int
		nothing["x"] = 1
	})
	http.HandleFunc("/deadlock", func(http.ResponseWriter, *http.Request) { select {} })
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "/app/"+r.URL.Query().Get("name"))
	})
	log.Fatal(isopod.Serve(nil))
}
