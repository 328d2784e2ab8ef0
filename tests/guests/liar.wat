;; Calls the host with the four numbers that its payload holds, whatever they are.
(module
  (import "host" "call" (func $call (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "host_alloc") (param $size i32) (result i32) (i32.const 4096))
  (func (export "tell") (param $p i32) (param $n i32)
    (drop (call $call
      (i32.load (local.get $p)) (i32.load offset=4 (local.get $p))
      (i32.load offset=8 (local.get $p)) (i32.load offset=12 (local.get $p)))))
  (func (export "wait") (param $p i32) (param $n i32)
    (i32.store (i32.const 0)
      (call $poll
        (i32.load (local.get $p)) (i32.load offset=4 (local.get $p))
        (i32.load offset=8 (local.get $p)) (i32.load offset=12 (local.get $p)))))
  (func (export "draw") (param $p i32) (param $n i32)
    (drop (call $random (i32.load (local.get $p)) (i32.load offset=4 (local.get $p))))))
