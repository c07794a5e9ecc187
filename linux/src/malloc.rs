//! What the allocator is told before the program begins.
//!
//! jemalloc looks for a symbol of this name when the first byte is asked for, so there is no other place to say it.
//! Invariant: heap profiles are prepared for, and nothing is sampled until somebody asks; `MALLOC_CONF` of the environment is
//! read after this and can say otherwise.

/// Profiling is there but not active; once it is, one allocation in 512 KiB is sampled, with its stack. What was freed goes
/// back to the system after a second, by a thread of its own: a start and a resend of the whole mesh need several times what
/// stays, and an agent that idles afterwards would give nothing back by itself. There are two arenas, as there are two workers unless
/// more are asked for, and not four for each CPU: each keeps pages of its own for each size, and what threads use up in turn comes from
/// their caches, not from the arenas.
// SAFETY: the symbol is jemalloc's own (a `const char *`, to which a thin reference is the same), which it declares weak so
// that a program may define it; the text ends with a zero byte and is never written.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 116] =
    b"prof:true,prof_active:false,lg_prof_sample:19,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2\0";

/// The same for an allocator that is Rust's alone, which looks for it under this name.
// SAFETY: as above.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static RUST_MALLOC_CONF: &[u8; 116] = MALLOC_CONF;

/// The options, as text. Asking for them links them into the program.
pub fn options() -> &'static str {
    // Which of the two the allocator looks at depends on how it was built, so none may be left out.
    let [text, _] = std::hint::black_box([MALLOC_CONF, RUST_MALLOC_CONF]);
    std::str::from_utf8(text.strip_suffix(b"\0").unwrap_or_default()).unwrap_or_default()
}
