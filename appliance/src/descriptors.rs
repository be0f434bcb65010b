//! How many files and sockets `dayzero serve` may have open: each boot has one or two while it is served.
//!
//! A shell on Debian gives 1,024, and the kernel the first process 4,096 at most: a thousand hosts that boot at once
//! would find no socket.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// What every limit of the boot services together can need: 2,048 TFTP transfers, 4,096 HTTP connections with a file
/// each on a handful of networks, agents, browsers and the store.
const WANTED: rlim_t = 65_536;

/// To be called once, before anything is opened. Raises what this process may have open as far as it is allowed to.
pub(crate) fn raise() {
    raise_to(WANTED);
}

/// What the limit is afterwards.
fn raise_to(wanted: rlim_t) -> rlim_t {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read");
            return 0;
        }
    };
    if soft >= wanted {
        return soft;
    }
    // Beyond the hard limit with CAP_SYS_RESOURCE alone.
    let tries = [(wanted, hard.max(wanted)), (hard.min(wanted), hard)];
    for (soft, hard) in tries {
        if setrlimit(Resource::RLIMIT_NOFILE, soft, hard).is_ok() {
            if soft < wanted {
                tracing::warn!(
                    limit = soft,
                    wanted,
                    "few open files: large boot storms wait; raise `ulimit -n`"
                );
            }
            return soft;
        }
    }
    tracing::warn!(limit = soft, wanted, "few open files: large boot storms wait; raise `ulimit -n`");
    soft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_raised_and_a_high_one_left() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Tests of this program run side by side: none needs more than this for the moment.
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).unwrap();
        let raised = raise_to(hard.min(1024));
        assert_eq!(
            (raised, getrlimit(Resource::RLIMIT_NOFILE).unwrap()),
            (hard.min(1024), (hard.min(1024), hard))
        );
        assert_eq!(raise_to(600), raised, "it is never lowered");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
}
