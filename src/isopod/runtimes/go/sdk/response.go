//go:build wasip1

package isopod

import (
	"context"
	"encoding/binary"
	"net/http"
	"strconv"
)

// response is sent whole when the handler returns, or in pieces.
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
