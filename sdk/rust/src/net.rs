//! Connections, as `std::net::TcpStream` has them once they are there: to what isopod.toml lists
//! (`[network] allow`). Anything else is `PermissionDenied`, and the log says which line is missing.

use std::io;
use std::net::TcpStream;
use std::os::wasi::io::FromRawFd;

const TLS: u32 = 1;

#[link(wasm_import_module = "isopod")]
extern "C" {
    #[link_name = "connect"]
    fn host_connect(host: *const u8, size: usize, port: u32, flags: u32) -> i32;
}

/// Waits until it is connected.
pub fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    open(host, port, 0)
}

/// The same through TLS, which is the host's: the certificate is checked for `host`, and what is
/// read and written is plain.
pub fn connect_tls(host: &str, port: u16) -> io::Result<TcpStream> {
    open(host, port, TLS)
}

fn open(host: &str, port: u16, flags: u32) -> io::Result<TcpStream> {
    let fd = unsafe { host_connect(host.as_ptr(), host.len(), port.into(), flags) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    Ok(unsafe { TcpStream::from_raw_fd(fd) })
}
