;; Grafted onto quickjs-wasi's module: what would be ten calls of the host's is one. A handle is the
;; address of a JSValue on the heap; who gets one from a qjs_ function frees it.

(func $alloc (export "host_alloc") (param $size i32) (result i32)
  (call $wasm_malloc (local.get $size)))

;; Promise jobs until there are none. A guest that makes them for ever is ended by its deadline.
(func $drain
  (loop $next
    (if (call $qjs_is_job_pending)
      (then
        (drop (call $qjs_execute_pending_job))
        (br $next)))))

;; Frees a result; whether it was an exception. What was thrown is dropped.
(func $settle (param $result i32) (result i32)
  (local $thrown i32)
  (local.set $thrown (call $qjs_is_exception (local.get $result)))
  (if (local.get $thrown)
    (then (call $qjs_free_value (call $qjs_get_exception))))
  (call $qjs_free_value (local.get $result))
  (local.get $thrown))

;; turn(first, second), then its jobs; 1 if it threw (it catches all but a lack of memory).
;; Takes `first` and `second` over.
(func $turn_with (param $turn i32) (param $first i32) (param $second i32) (result i32)
  (local $arguments i32) (local $this i32) (local $thrown i32)
  (local.set $arguments (call $wasm_malloc (i32.const 8)))
  (if (i32.eqz (local.get $arguments)) (then (return (i32.const 1))))
  (i32.store (local.get $arguments) (local.get $first))
  (i32.store offset=4 (local.get $arguments) (local.get $second))
  (local.set $this (call $qjs_get_undefined))
  (local.set $thrown
    (call $settle
      (call $qjs_call (local.get $turn) (local.get $this) (i32.const 2) (local.get $arguments))))
  (call $qjs_free_value (local.get $this))
  (call $qjs_free_value (local.get $first))
  (call $qjs_free_value (local.get $second))
  (call $wasm_free (local.get $arguments))
  (call $drain)
  (local.get $thrown))

(func (export "isopod_turn") (param $turn i32) (result i32)
  (call $turn_with (local.get $turn) (call $qjs_get_undefined) (call $qjs_get_undefined)))

;; Tells of an error: of a promise that nobody handles. Takes `reason` over.
(func (export "isopod_reject") (param $turn i32) (param $reason i32) (result i32)
  (call $turn_with (local.get $turn) (call $qjs_get_undefined) (local.get $reason)))

;; data: 16 bytes of name, 16 of the host function's name, code, NUL. The prelude's value is
;; [turn, inbox, outbox]; gives the address of four numbers: turn's handle, the addresses of the
;; buffers, 0; or 0 itself when the prelude failed.
(func (export "isopod_prelude") (param $data i32) (param $size i32) (result i32)
  (local $global i32) (local $made i32) (local $value i32) (local $facts i32) (local $buffer i32)
  (if (call $qjs_init) (then (return (i32.const 0))))
  (call $qjs_set_max_stack_size (i32.const 524288))
  (call $qjs_set_promise_rejection_handler (i32.const 1))
  (local.set $global (call $qjs_get_global))
  (drop (call $qjs_set_prop_string
    (local.get $global)
    (i32.add (local.get $data) (i32.const 16))
    (call $qjs_new_host_function
      (i32.add (local.get $data) (i32.const 16))
      (call $strlen (i32.add (local.get $data) (i32.const 16)))
      (i32.const 0))))
  (call $qjs_free_value (local.get $global))
  (local.set $value
    (call $qjs_eval
      (i32.add (local.get $data) (i32.const 32))
      (i32.sub (local.get $size) (i32.const 33))
      (local.get $data)
      (i32.const 0)))
  (if (call $qjs_is_exception (local.get $value)) (then (return (i32.const 0))))
  (call $drain)
  (local.set $facts (call $wasm_malloc (i32.const 16)))
  (i32.store (local.get $facts) (call $qjs_get_prop_uint32 (local.get $value) (i32.const 0)))
  (local.set $buffer (call $qjs_get_prop_uint32 (local.get $value) (i32.const 1)))
  (i32.store offset=4 (local.get $facts)
    (call $qjs_get_array_buffer (local.get $buffer) (i32.add (local.get $facts) (i32.const 12))))
  (local.set $buffer (call $qjs_get_prop_uint32 (local.get $value) (i32.const 2)))
  (i32.store offset=8 (local.get $facts)
    (call $qjs_get_array_buffer (local.get $buffer) (i32.add (local.get $facts) (i32.const 12))))
  (call $qjs_free_value (local.get $value))
  (call $wasm_free (local.get $data))
  (local.get $facts))

;; data: u32 turn's handle, 28 bytes of name, a module's code, NUL. turn gets the promise of its
;; exports, or what was thrown.
(func (export "isopod_app") (param $data i32) (param $size i32) (result i32)
  (local $turn i32) (local $value i32)
  (local.set $turn (i32.load (local.get $data)))
  (local.set $value
    (call $qjs_eval
      (i32.add (local.get $data) (i32.const 32))
      (i32.sub (local.get $size) (i32.const 33))
      (i32.add (local.get $data) (i32.const 4))
      (i32.const 1)))
  (call $wasm_free (local.get $data))
  (if (result i32) (call $qjs_is_exception (local.get $value))
    (then
      (call $qjs_free_value (local.get $value))
      (call $turn_with (local.get $turn) (call $qjs_get_undefined) (call $qjs_get_exception)))
    (else
      (call $turn_with (local.get $turn) (local.get $value) (call $qjs_get_undefined)))))
