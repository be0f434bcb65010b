//! How `dayzero serve` takes memory from the kernel: little, and what is done with is given back.

use nix::libc;

/// From this size on a block of memory is the kernel's own mapping, gone when it is freed, bytes.
const OWN_MAPPING: libc::c_int = 1 << 20;

/// To be called once, before the service has work.
pub(crate) fn keep_small() {
    // Where the kernel gives huge pages to all (Debian's does), each thread's heap takes 2 MiB for the first few KiB.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    // glibc raises its bound with each large block that is freed: after the first password that is hashed, the next such
    // block would come out of a heap, and stay there.
    #[cfg(target_env = "gnu")]
    // SAFETY: a call without pointers, that may be made at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
    }
}
