//! Build it, put the module beside isopod.toml, and deploy the folder:
//!
//!     cargo build --release --target wasm32-wasip1
//!     cp target/wasm32-wasip1/release/hello.wasm .
//!     isopod deploy

isopod::serve!(setup, answer);

/// Once, when the app is deployed: every instance starts with it done.
fn setup() {}

fn answer(_request: &mut isopod::Request, response: &mut isopod::Response) {
    response.header("content-type", "text/plain");
    response.write(b"Hello from Rust!\n");
}
