//! What a handler answers with.

use std::io::{self, Write};

/// Sent whole when the handler returns, or in pieces. `flush` sends what there is.
#[derive(Default)]
pub struct Response {
    status: u16,
    head: Vec<u8>,
    body: Vec<u8>,
    pub(crate) sent: bool,
    gone: bool,
}

impl Response {
    pub(crate) fn new() -> Self {
        Response { status: 200, ..Response::default() }
    }

    /// Before the first piece has gone out.
    pub fn status(&mut self, status: u16) -> &mut Self {
        self.status = status;
        self
    }

    /// Line breaks and other control bytes become blanks.
    pub fn header(&mut self, name: &str, value: &str) -> &mut Self {
        self.head.push(b'\n');
        self.head.extend(name.bytes());
        self.head.push(b':');
        self.head.extend(value.bytes().map(|byte| if byte < b' ' { b' ' } else { byte }));
        self
    }

    pub fn write(&mut self, data: &[u8]) -> &mut Self {
        let _ = self.write_all(data);
        self
    }

    pub(crate) fn say(
        &self,
        operation: u8,
        send: fn(u8, &[&[u8]]) -> &'static [u8],
    ) -> &'static [u8] {
        if self.sent {
            return send(operation, &[&self.body]);
        }
        let status = self.status.to_string();
        let length = ((status.len() + self.head.len()) as u32).to_le_bytes();
        send(operation, &[&length, status.as_bytes(), &self.head, &self.body])
    }
}

impl Write for Response {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let part = data.len().min(64 * 1024 - self.body.len());
        self.body.extend(&data[..part]);
        if self.body.len() == 64 * 1024 {
            self.flush()?;
        }
        Ok(part)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.gone && !(self.sent && self.body.is_empty()) {
            let answer = self.say(if self.sent { b'D' } else { b'H' }, crate::call);
            self.gone = !answer.is_empty();
            self.sent = true;
            self.body.clear();
        }
        Ok(())
    }
}
