//! Answer HTTP requests from WebAssembly, on isopod (docs/reactors.md).
//!
//! ```ignore
//! isopod::serve!(setup, answer);
//! fn setup() {}
//! fn answer(request: &mut isopod::Request, response: &mut isopod::Response) {
//!     response.header("content-type", "text/plain");
//!     response.write(b"hello");
//! }
//! ```
//!
//! `setup` runs once, when the app is deployed: what it leaves in memory is what every instance
//! starts from. Settings are in `std::env::var` in requests, not before.
//! Build as a `cdylib` for `wasm32-wasip1`; on older compilers, `wasm32-wasi`.

use std::cell::UnsafeCell;
use std::io::{self, Read, Write};

mod net;
mod response;
pub use net::{connect, connect_tls};
pub use response::Response;

const BOX: usize = 256 * 1024;

/// The two halves of the mailbox: each is a length and so many bytes.
#[repr(C, align(4))]
struct Mail(UnsafeCell<[u8; BOX]>);
// A guest has one thread.
unsafe impl Sync for Mail {}
static INBOX: Mail = Mail(UnsafeCell::new([0; BOX]));
static OUTBOX: Mail = Mail(UnsafeCell::new([0; BOX]));
struct Record(UnsafeCell<[u32; 4]>);
unsafe impl Sync for Record {}
static RECORD: Record = Record(UnsafeCell::new([0; 4]));

#[link(wasm_import_module = "isopod")]
extern "C" {
    #[link_name = "call"]
    fn host_call() -> i32;
}

/// `serve!(setup, answer)`: what the host calls.
#[macro_export]
macro_rules! serve {
    ($setup:path, $answer:path) => {
        #[no_mangle]
        pub extern "C" fn isopod_start() -> u32 {
            $setup();
            $crate::record()
        }
        #[no_mangle]
        pub extern "C" fn isopod_settings() {
            $crate::settings()
        }
        #[no_mangle]
        pub extern "C" fn isopod_handle() {
            $crate::handle($answer)
        }
    };
}

/// One request. Its body is what it reads as `std::io::Read`. Names of headers are lower case.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub protocol: String,
    pub scheme: String,
    pub host: String,
    pub port: u16,
    pub client: String,
    pub has_body: bool,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}

impl Read for Request {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || !self.has_body {
            return Ok(0);
        }
        let wanted = into.len().min(64 * 1024);
        let answer = call(b'B', &[&(wanted as u32).to_le_bytes()]);
        let got = answer.len().min(wanted);
        into[..got].copy_from_slice(&answer[..got]);
        Ok(got)
    }
}

#[doc(hidden)]
pub fn record() -> u32 {
    let (inbox, outbox) = (INBOX.0.get() as u32, OUTBOX.0.get() as u32);
    unsafe { *RECORD.0.get() = [1, inbox, outbox, BOX as u32] };
    RECORD.0.get() as u32
}

#[doc(hidden)]
pub fn settings() {
    for setting in String::from_utf8_lossy(received()).split('\0') {
        if let Some((name, value)) = setting.split_once('=') {
            std::env::set_var(name, value);
        }
    }
}

#[doc(hidden)]
pub fn handle(answer: fn(&mut Request, &mut Response)) {
    let text = String::from_utf8_lossy(received()).into_owned();
    let mut lines = text.split('\n').map(String::from);
    let mut next = || lines.next().unwrap_or_default();
    let mut request = Request {
        method: next(), path: next(), query: next(), protocol: next(), scheme: next(),
        host: next(), port: next().parse().unwrap_or(0), client: next(), has_body: next() == "1",
        headers: Vec::new(),
    };
    request.headers.extend(lines.filter_map(|line| {
        line.split_once(':').map(|(name, value)| (name.into(), value.into()))
    }));
    let mut response = Response::new();
    answer(&mut request, &mut response);
    if response.sent {
        let _ = response.flush();
        say(b'E', &[]);
    } else {
        response.say(b'S', |operation, parts| { say(operation, parts); b"" });
    }
}

fn received() -> &'static [u8] {
    let inbox = unsafe { &*INBOX.0.get() };
    let length = u32::from_le_bytes([inbox[0], inbox[1], inbox[2], inbox[3]]) as usize;
    &inbox[4..4 + length.min(BOX - 4)]
}

fn say(operation: u8, parts: &[&[u8]]) {
    let outbox = unsafe { &mut *OUTBOX.0.get() };
    outbox[4] = operation;
    let mut end = 5;
    for part in parts {
        let part = &part[..part.len().min(BOX - end)];
        outbox[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    outbox[..4].copy_from_slice(&(end as u32 - 4).to_le_bytes());
}

fn call(operation: u8, parts: &[&[u8]]) -> &'static [u8] {
    say(operation, parts);
    unsafe { host_call() };
    received()
}
