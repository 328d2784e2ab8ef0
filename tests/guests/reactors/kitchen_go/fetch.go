package main

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// As anywhere: nothing here knows of isopod.
func init() {
	http.HandleFunc("/fetch", func(w http.ResponseWriter, r *http.Request) {
		client := &http.Client{}
		if wait, err := time.ParseDuration(r.URL.Query().Get("within")); err == nil {
			client.Timeout = wait
		}
		response, err := client.Get(r.URL.Query().Get("url"))
		if err != nil {
			fmt.Fprintln(w, err)
			return
		}
		defer response.Body.Close()
		size, err := io.Copy(w, response.Body)
		fmt.Fprint(w, " ", response.Status, " ", size, " ", err)
	})
	http.HandleFunc("/both", func(w http.ResponseWriter, r *http.Request) {
		// The second has to be asked before the first is answered.
		answers := make(chan string)
		for _, path := range []string{"/first", "/second"} {
			go func() {
				response, err := http.Get(r.URL.Query().Get("url") + path)
				if err != nil {
					answers <- err.Error()
					return
				}
				defer response.Body.Close()
				text, _ := io.ReadAll(response.Body)
				answers <- string(text)
			}()
		}
		fmt.Fprint(w, <-answers, " ", <-answers)
	})
}
