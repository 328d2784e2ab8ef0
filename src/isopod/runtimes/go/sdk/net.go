//go:build wasip1

package isopod

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// A program connects as it would anywhere: http.Get, http.DefaultClient and whatever has
// http.DefaultTransport or a Clone of it go through the host, which speaks TLS. For the rest there
// are DialContext and DialTLSContext, where a library takes a function that dials. isopod.toml says
// what may be reached ([network] allow).
func init() {
	if transport, ok := http.DefaultTransport.(*http.Transport); ok {
		transport.DialContext = DialContext
		transport.DialTLSContext = DialTLSContext
	}
}

// DialContext connects to address, "host:port". The network is "tcp".
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, network, address, 0)
}

// DialTLSContext is DialContext through TLS, which is the host's: the certificate is checked for
// the host's name, and what is read and written is plain.
func DialTLSContext(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, network, address, useTLS)
}

const useTLS, nonblocking = 1, 2

//go:wasmimport isopod connect
func hostConnect(host string, port, flags uint32) int32

//go:wasmimport isopod connected
func hostConnected(fd int32) int32

func dial(ctx context.Context, network, address string, flags uint32) (net.Conn, error) {
	conn, err := connect(ctx, network, address, flags)
	if err != nil {
		if failed := context.Cause(ctx); failed != nil {
			err = failed
		}
		return nil, &net.OpError{Op: "dial", Net: network, Addr: place(address), Err: err}
	}
	return conn, nil
}

func connect(ctx context.Context, network, address string, flags uint32) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(network, "tcp") {
		return nil, net.UnknownNetworkError(network)
	}
	fd := hostConnect(host, uint32(port), flags|nonblocking)
	if fd < 0 {
		return nil, os.NewSyscallError("connect", syscall.Errno(-fd))
	}
	file := os.NewFile(uintptr(fd), address)
	conn, err := net.FileConn(file)
	file.Close() // the connection holds the descriptor, too
	if err != nil {
		return nil, err
	}
	if err = await(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// await returns when the connection is there, or was refused.
func await(ctx context.Context, conn net.Conn) error {
	known, ok := conn.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := known.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	var failed syscall.Errno
	err = raw.Write(func(fd uintptr) bool {
		failed = syscall.Errno(hostConnected(int32(fd)))
		return failed != syscall.EINPROGRESS
	})
	if !stop() {
		return context.Cause(ctx)
	}
	if err == nil && failed != 0 {
		err = os.NewSyscallError("connect", failed)
	}
	return err
}

// place is an address as it was asked for: names are the host's affair.
type place string

func (place) Network() string  { return "tcp" }
func (p place) String() string { return string(p) }
