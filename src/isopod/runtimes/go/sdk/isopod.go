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
	"strconv"
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

type response struct {
	header       http.Header
	head, body   []byte
	begun, typed bool
	sent, gone   bool // gone: the client is
	cancel       context.CancelFunc
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(status int) {
	if w.begun || status < 200 { // interim ones are the gateway's
		return
	}
	w.begun = true
	w.head = strconv.AppendInt(nil, int64(status), 10)
	w.typed = w.header["Content-Type"] != nil || w.header["Content-Encoding"] != nil
	for name, values := range w.header {
		for _, value := range values {
			w.head = append(w.head, "\n"+name+":"+oneLine.Replace(value)...)
		}
	}
}

func (w *response) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	for left := data; len(left) > 0; {
		if w.gone {
			return len(data) - len(left), http.ErrAbortHandler
		}
		part := left[:min(len(left), pieceBytes-len(w.body))]
		w.body, left = append(w.body, part...), left[len(part):]
		if len(w.body) == pieceBytes {
			w.Flush()
		}
	}
	return len(data), nil
}

// Flush makes response an http.Flusher.
func (w *response) Flush() {
	w.WriteHeader(http.StatusOK)
	if w.gone || w.sent && len(w.body) == 0 {
		return
	}
	if w.sent {
		say('D', string(w.body))
	} else {
		w.say('H')
	}
	call()
	w.sent, w.body = true, w.body[:0]
	if w.gone = len(received()) > 0; w.gone {
		w.cancel()
	}
}

func (w *response) say(operation byte) {
	if !w.typed && len(w.body) > 0 {
		w.head = append(w.head, "\nContent-Type:"+http.DetectContentType(w.body)...)
	}
	length := binary.LittleEndian.AppendUint32(nil, uint32(len(w.head)))
	say(operation, string(length)+string(w.head)+string(w.body))
}

// received is what the host wrote into the inbox; say fills the outbox.
func received() []byte {
	return inbox[4 : 4+min(binary.LittleEndian.Uint32(inbox[:]), boxBytes-4)]
}

func say(operation byte, data string) {
	outbox[4] = operation
	binary.LittleEndian.PutUint32(outbox[:], uint32(1+copy(outbox[5:], data)))
}
