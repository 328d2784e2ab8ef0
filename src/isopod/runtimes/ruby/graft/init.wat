;; Grafted onto ruby.wasm's module, whose exports are those of its bindings for JavaScript.

(func (export "host_alloc") (param $size i32) (result i32)
  (call $cabi_realloc (i32.const 0) (i32.const 0) (i32.const 1) (local.get $size)))

;; data: u32 count of arguments, then for each u32 offset in data and u32 length (its NUL included).
;; The interpreter starts with them. Takes `data` over.
(func (export "isopod_init") (param $data i32) (param $size i32)
  (local $at i32) (local $left i32)
  (local.set $left (i32.load (local.get $data)))
  (local.set $at (i32.add (local.get $data) (i32.const 4)))
  (loop $next
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (local.get $data)))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
  (call $"ruby-init: func(args: list<string>) -> ()"
    (i32.add (local.get $data) (i32.const 4)) (i32.load (local.get $data))))

;; Gives the state of rb_protect: 0 unless the code threw.
(func (export "isopod_eval") (param $code i32) (param $size i32) (result i32)
  (i32.load offset=4
    (call $"rb-eval-string-protect: func(str: string) -> tuple<handle<rb-abi-value>, s32>"
      (local.get $code) (local.get $size))))
