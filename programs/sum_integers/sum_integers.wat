;; Prints the sum of the integers from the first argument up to, but not including, the second: sum_integers.c by hand,
;; for machines without clang. Exits with 2 on other arguments than two decimal integers, with 1 where the sum does not
;; fit into 64 bits.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  ;; 0: count of arguments, 4: their length, 8: pointers to them, 64: a list of one buffer and the length written,
  ;; 128: the digits from their end at 160 down, 1024: the arguments' text.
  (memory (export "memory") 1)
  (data (i32.const 256) "usage: sum_integers FROM TO\n")
  (data (i32.const 320) "the sum does not fit into 64 bits\n")

  (func $write (param $file i32) (param $text i32) (param $length i32)
    (i32.store (i32.const 64) (local.get $text))
    (i32.store (i32.const 68) (local.get $length))
    (if (call $fd_write (local.get $file) (i32.const 64) (i32.const 1) (i32.const 72))
      (then (call $proc_exit (i32.const 1))))
    (if (i32.ne (i32.load (i32.const 72)) (local.get $length))
      (then (call $proc_exit (i32.const 1)))))

  (func $refuse
    (call $write (i32.const 2) (i32.const 256) (i32.const 28))
    (call $proc_exit (i32.const 2)))

  (func $overflow
    (call $write (i32.const 2) (i32.const 320) (i32.const 34))
    (call $proc_exit (i32.const 1)))

  (func $parse (param $text i32) (result i64)
    (local $value i64) (local $digit i32) (local $negative i32)
    (if (i32.eq (i32.load8_u (local.get $text)) (i32.const 45))
      (then
        (local.set $negative (i32.const 1))
        (local.set $text (i32.add (local.get $text) (i32.const 1)))))
    (if (i32.eqz (i32.load8_u (local.get $text))) (then (call $refuse)))
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $text)) (i32.const 48)))
      (if (i32.gt_u (local.get $digit) (i32.const 9)) (then (call $refuse)))
      ;; Negative, since the smallest integer has no positive counterpart.
      (if (i64.lt_s (local.get $value) (i64.const -922337203685477580)) (then (call $refuse)))
      (local.set $value (i64.mul (local.get $value) (i64.const 10)))
      (if (i64.lt_s (local.get $value)
            (i64.add (i64.const -9223372036854775808) (i64.extend_i32_u (local.get $digit))))
        (then (call $refuse)))
      (local.set $value (i64.sub (local.get $value) (i64.extend_i32_u (local.get $digit))))
      (local.set $text (i32.add (local.get $text) (i32.const 1)))
      (br_if $next (i32.load8_u (local.get $text))))
    (if (local.get $negative) (then (return (local.get $value))))
    (if (i64.eq (local.get $value) (i64.const -9223372036854775808)) (then (call $refuse)))
    (i64.sub (i64.const 0) (local.get $value)))

  (func $print (param $value i64)
    (local $at i32) (local $rest i64)
    (local.set $at (i32.const 159))
    (i32.store8 (local.get $at) (i32.const 10))
    ;; The magnitude as an unsigned number, which the smallest integer has, too.
    (local.set $rest (select (i64.sub (i64.const 0) (local.get $value)) (local.get $value)
      (i64.lt_s (local.get $value) (i64.const 0))))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $rest) (i64.const 10)))))
      (local.set $rest (i64.div_u (local.get $rest) (i64.const 10)))
      (br_if $next (i64.ne (local.get $rest) (i64.const 0))))
    (if (i64.lt_s (local.get $value) (i64.const 0))
      (then
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i32.store8 (local.get $at) (i32.const 45))))
    (call $write (i32.const 1) (local.get $at) (i32.sub (i32.const 160) (local.get $at))))

  (func (export "_start")
    (local $number i64) (local $to i64) (local $sum i64) (local $next i64)
    (if (call $args_sizes_get (i32.const 0) (i32.const 4)) (then (call $refuse)))
    (if (i32.ne (i32.load (i32.const 0)) (i32.const 3)) (then (call $refuse)))
    (if (i32.gt_u (i32.load (i32.const 4)) (i32.const 60000)) (then (call $refuse)))
    (if (call $args_get (i32.const 8) (i32.const 1024)) (then (call $refuse)))
    (local.set $number (call $parse (i32.load (i32.const 12))))
    (local.set $to (call $parse (i32.load (i32.const 16))))
    (block $done
      (loop $add
        (br_if $done (i64.ge_s (local.get $number) (local.get $to)))
        (local.set $next (i64.add (local.get $sum) (local.get $number)))
        ;; Both operands have the other sign than the result.
        (if (i64.lt_s
              (i64.and (i64.xor (local.get $sum) (local.get $next)) (i64.xor (local.get $number) (local.get $next)))
              (i64.const 0))
          (then (call $overflow)))
        (local.set $sum (local.get $next))
        (local.set $number (i64.add (local.get $number) (i64.const 1)))
        (br $add)))
    (call $print (local.get $sum))))
