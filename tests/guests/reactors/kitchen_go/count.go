package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
)

func init() {
	http.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile("/data/count")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Fprint(w, err)
			return
		}
		count, _ := strconv.Atoi(string(text))
		if err := os.WriteFile("/data/count", []byte(strconv.Itoa(count+1)), 0o600); err != nil {
			fmt.Fprint(w, err)
			return
		}
		entries, err := os.ReadDir("/data")
		fmt.Fprint(w, count+1, " ", entries, " ", err)
	})
}
