// Attacks its node from inside, one way for each path: see tests/hostile/test_every_language.py.
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log"
	mathrand "math/rand"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	isopod "github.com/isopod-cloud/isopod/sdk/go"
)

var kept [][]byte

func say(to http.ResponseWriter, value any) {
	to.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(to).Encode(value)
}

func recurse(level int) int {
	var large [512]byte
	large[level%512] = 1
	return recurse(level+1) + int(large[0])
}

func clock() []int64 {
	seen := map[int64]bool{}
	for began := time.Now(); time.Since(began) < 200*time.Millisecond; {
		seen[time.Now().UnixNano()%1_000_000] = true
	}
	found := []int64{}
	for one := range seen {
		found = append(found, one)
	}
	return found
}

func errors(found ...error) []string {
	said := []string{}
	for _, one := range found {
		if one == nil {
			said = append(said, "worked")
		} else {
			said = append(said, one.Error())
		}
	}
	return said
}

func opened(paths ...string) []string {
	said := []string{}
	for _, path := range paths {
		_, err := os.Open(path)
		said = append(said, errors(err)...)
	}
	return said
}

func environment() map[string]string {
	found := map[string]string{}
	for _, one := range os.Environ() {
		name, value, _ := strings.Cut(one, "=")
		found[name] = value
	}
	return found
}

func headers(to http.ResponseWriter, what string) {
	// In names: our package makes one line of a value, as net/http does.
	switch what {
	case "split":
		to.Header()["X:a\rSet-Cookie: evil=1"] = []string{"1"}
	case "name":
		to.Header()["X\r\nSet-Cookie"] = []string{"evil=1"}
	case "nul":
		to.Header()["X:a\x00b"] = []string{"1"}
	case "lengths":
		to.Header()["Content-Length"] = []string{"1", "2"}
	case "negative":
		to.Header().Set("Content-Length", "-1")
	case "long":
		to.Header().Set("Content-Length", strings.Repeat("9", 30))
	case "many":
		for n := range 300 {
			to.Header().Set(fmt.Sprintf("X-%d", n), "y")
		}
	case "large":
		to.Header().Set("X", strings.Repeat("y", 70_000))
	}
	fmt.Fprint(to, "x")
}

func fresh(to http.ResponseWriter) {
	bytes := make([]byte, 16)
	_, _ = rand.Read(bytes)
	var seeded maphash.Hash
	random := []any{bytes, mathrand.Int63(), mathrand.Perm(30), seeded.Sum64()}
	now := float64(time.Now().UnixNano()) / 1e6
	say(to, map[string]any{"random": random, "now_ms": now, "setting": os.Getenv("SETTING")})
}

func attack(to http.ResponseWriter, request *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
	switch name {
	case "":
		fmt.Fprint(to, "fine")
	case "loop":
		for {
		}
	case "never":
		time.Sleep(time.Hour)
	case "memory":
		for {
			piece := make([]byte, 1<<20)
			piece[0] = 1
			kept = append(kept, piece)
		}
	case "recurse":
		fmt.Fprint(to, recurse(0))
	case "flood":
		for {
			fmt.Fprintln(os.Stderr, "flood", strings.Repeat("x", 1000))
		}
	case "vanish":
		os.Exit(3)
	case "log":
		fmt.Fprintln(os.Stderr, rest)
		say(to, 1)
	case "headers":
		headers(to, rest)
	case "longer":
		to.Header().Set("Content-Length", "5")
		fmt.Fprint(to, strings.Repeat("x", 1000))
	case "shorter":
		to.Header().Set("Content-Length", "1000")
		fmt.Fprint(to, "xxxxx")
	case "endless":
		for {
			fmt.Fprint(to, strings.Repeat("x", 50_000))
		}
	case "later":
		to.Header().Set("Content-Length", "3")
		fmt.Fprint(to, "now")
		to.(http.Flusher).Flush()
		for {
		}
	case "connection":
		for name, value := range map[string]string{"Transfer-Encoding": "chunked",
			"Connection": "x-mine", "X-Mine": "1", "X-Request-Id": "forged"} {
			to.Header().Set(name, value)
		}
		fmt.Fprint(to, "5\r\nhello")
	case "env":
		say(to, environment())
	case "files":
		say(to, opened("/proc/self/environ", "/etc/passwd", "/app/../../../token",
			"/tmp/../../../state.db", "/dev/mem", "../../token", "/tmp/private/diary"))
	case "connect":
		_, one := net.Dial("tcp", "127.0.0.1:"+rest)
		_, two := http.Get("http://169.254.169.254/")
		say(to, errors(one, two))
	case "clock":
		say(to, clock())
	case "fresh":
		fresh(to)
	}
}

func main() {
	log.Fatal(isopod.Serve(http.HandlerFunc(attack)))
}
