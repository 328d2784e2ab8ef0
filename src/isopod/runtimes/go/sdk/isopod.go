// Package isopod serves an http.Handler from WebAssembly (docs/reactors.md).
//
//	func main() { log.Fatal(isopod.Serve(handler)) } // in place of http.ListenAndServe
//
// main runs once, when the app is deployed; what it leaves in memory is what every instance
// starts from. Settings are in os.Getenv from OnStart and in requests, not before.
//
//go:build wasip1

package isopod

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"
)

// The mailbox's halves; and pieces of a response that is not sent whole.
const boxBytes, pieceBytes = 256 << 10, 64 << 10

var (
	inbox, outbox [boxBytes]byte
	record        [4]uint32
	handler       http.Handler
	served        = make(chan bool, 1)
	hooks         []func()
	oneLine       = strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ")
)

// Serve answers requests with h (nil: http.DefaultServeMux) as long as the app lives.
func Serve(h http.Handler) error {
	if handler != nil {
		return errors.New("isopod: Serve was called before")
	}
	if handler = h; h == nil {
		handler = http.DefaultServeMux
	}
	served <- true
	select {}
}

// OnStart has f called in each instance before its first request, with the app's settings.
func OnStart(f func()) { hooks = append(hooks, f) }

//go:wasmimport isopod call
func call() int32

//go:linkname appMain main.main
func appMain()

//go:wasmexport isopod_start
func start() uint32 {
	go func() { appMain(); served <- false }()
	if !<-served {
		fmt.Fprintln(os.Stderr, "main ended without a call of isopod.Serve")
		return 0
	}
	in, out := uintptr(unsafe.Pointer(&inbox)), uintptr(unsafe.Pointer(&outbox))
	record = [4]uint32{1, uint32(in), uint32(out), boxBytes}
	debug.FreeOSMemory() // what main left behind shall not be in the image
	return uint32(uintptr(unsafe.Pointer(&record)))
}

//go:wasmexport isopod_settings
func settings() {
	reseed()
	for _, setting := range strings.Split(string(received()), "\x00") {
		if name, value, found := strings.Cut(setting, "="); found {
			os.Setenv(name, value)
		}
	}
	for _, hook := range hooks {
		hook()
	}
}

//go:wasmexport isopod_handle
func handle() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &response{header: http.Header{}, cancel: cancel}
	defer func() {
		if failed := recover(); failed != nil {
			if failed != http.ErrAbortHandler {
				fmt.Fprintf(os.Stderr, "panic: %v\n%s", failed, debug.Stack())
			}
			say('X', "\n"+fmt.Sprint(failed))
		}
	}()
	if r, err := request(string(received())); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	} else {
		handler.ServeHTTP(w, r.WithContext(ctx))
	}
	w.WriteHeader(http.StatusOK)
	if !w.sent {
		w.say('S')
		return
	}
	w.Flush()
	say('E', "")
}

// request reads the lines that the host wrote.
func request(text string) (*http.Request, error) {
	lines := strings.Split(text, "\n")
	target := strings.TrimSuffix(lines[1]+"?"+lines[2], "?")
	head := lines[0] + " " + target + " HTTP/1.1\r\n" + strings.Join(lines[9:], "\r\n") + "\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		return nil, err
	}
	r.Proto, r.RemoteAddr, r.Body, r.TransferEncoding = lines[3], lines[7]+":0", http.NoBody, nil
	r.ProtoMajor, r.ProtoMinor, _ = http.ParseHTTPVersion(lines[3])
	if lines[8] == "1" {
		r.Body = io.NopCloser(body{})
		if r.Header.Get("Content-Length") == "" {
			r.ContentLength = -1
		}
	}
	return r, nil
}

// body asks the host for the request's.
type body struct{}

func (body) Read(p []byte) (int, error) {
	size := uint32(min(len(p), pieceBytes))
	if size == 0 {
		return 0, nil
	}
	say('B', string(binary.LittleEndian.AppendUint32(nil, size)))
	call()
	if n := copy(p, received()); n > 0 {
		return n, nil
	}
	return 0, io.EOF
}

// received is what the host wrote into the inbox; say fills the outbox.
func received() []byte {
	return inbox[4 : 4+min(binary.LittleEndian.Uint32(inbox[:]), boxBytes-4)]
}

func say(operation byte, data string) {
	outbox[4] = operation
	binary.LittleEndian.PutUint32(outbox[:], uint32(1+copy(outbox[5:], data)))
}
