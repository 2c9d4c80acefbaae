//! The head of the filter of system calls: a search by halves among the numbers of calls.
//!
//! The kernel runs each new filter once for every number of a call, to remember those that it always allows. For a chain
//! of comparisons, one for each listed call, that takes longer than to execute a program.

use std::collections::BTreeMap;

use seccompiler::{BackendError, BpfProgram, sock_filter};

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// It fails with this error.
    Refuse(i32),
    /// The rest of the filter looks at its arguments.
    Examine,
}

// `BPF_LD | BPF_W | BPF_ABS`, and `BPF_JMP` with `BPF_JA`, `BPF_JEQ` and `BPF_JGE`, and `BPF_RET`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// `AUDIT_ARCH_X86_64` or `AUDIT_ARCH_AARCH64`: the machine of ELF, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = 62 | 0xc000_0000;
#[cfg(not(target_arch = "x86_64"))]
const THIS_ARCHITECTURE: u32 = 183 | 0xc000_0000;

/// A filter that answers by a call's number, and has `rest`, a filter of its own, answer to those that it is to examine. Calls of
/// another architecture end the process.
pub(crate) fn by_number(
    verdicts: &BTreeMap<i64, Verdict>,
    otherwise: Verdict,
    rest: BpfProgram,
) -> Result<BpfProgram, BackendError> {
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(JUMP_IF_EQUAL, THIS_ARCHITECTURE, 1),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER),
    ];
    program.extend(search(&runs(verdicts, otherwise))?);
    let end = program.len();
    for (place, instruction) in program.iter_mut().enumerate().filter(|(_, instruction)| instruction.code == JUMP) {
        let left = end - place - 1;
        instruction.k = u32::try_from(left).map_err(|_| BackendError::FilterTooLarge(left))?;
    }
    program.extend(rest);
    Ok(program)
}

/// Runs of numbers with the same verdict, each by its first number. The first one begins with 0.
fn runs(verdicts: &BTreeMap<i64, Verdict>, otherwise: Verdict) -> Vec<(u32, Verdict)> {
    let mut runs = vec![(0, otherwise)];
    let mut begin = |start, verdict| {
        runs.pop_if(|(last, _)| *last == start);
        if runs.last().is_none_or(|(_, last)| *last != verdict) {
            runs.push((start, verdict));
        }
    };
    for (number, verdict) in verdicts {
        let Ok(number) = u32::try_from(*number) else { continue };
        begin(number, *verdict);
        begin(number + 1, otherwise);
    }
    runs
}

/// Answers to the number that is loaded. A jump from here leads to the rest of the filter.
fn search(runs: &[(u32, Verdict)]) -> Result<BpfProgram, BackendError> {
    if let [(_, verdict)] = runs {
        return Ok(vec![match verdict {
            Verdict::Allow => statement(RETURN, libc::SECCOMP_RET_ALLOW),
            Verdict::Refuse(error) => statement(RETURN, libc::SECCOMP_RET_ERRNO | error.unsigned_abs()),
            Verdict::Examine => statement(JUMP, 0),
        }]);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let (below, above) = (search(low)?, search(high)?);
    let over = u8::try_from(below.len()).map_err(|_| BackendError::FilterTooLarge(below.len()))?;
    let mut program = vec![jump(JUMP_IF_AT_LEAST, high[0].0, over)];
    program.extend(below);
    program.extend(above);
    Ok(program)
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Jumps over instructions where the comparison holds.
fn jump(code: u16, k: u32, over: u8) -> sock_filter {
    sock_filter { code, jt: over, jf: 0, k }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A call as a filter sees it.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Seen {
        pub(crate) architecture: u32,
        pub(crate) number: u32,
        pub(crate) arguments: [u64; 6],
    }

    pub(crate) fn seen(number: u32, arguments: [u64; 6]) -> Seen {
        Seen { architecture: THIS_ARCHITECTURE, number, arguments }
    }

    /// The filter's answer, as the kernel finds it.
    pub(crate) fn answer(filter: &[sock_filter], call: Seen) -> u32 {
        let (mut accumulator, mut next) = (0_u32, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[next];
            let choose = |holds: bool| usize::from(if holds { jt } else { jf });
            next += 1;
            match code {
                LOAD if k == NUMBER => accumulator = call.number,
                LOAD if k == ARCHITECTURE => accumulator = call.architecture,
                LOAD => {
                    let (argument, half) = ((k as usize - 16) / 8, k % 8 * 8);
                    accumulator = u32::try_from((call.arguments[argument] >> half) & 0xffff_ffff).expect("32 bits");
                }
                0x54 => accumulator &= k,
                JUMP => next += k as usize,
                JUMP_IF_EQUAL => next += choose(accumulator == k),
                0x25 => next += choose(accumulator > k),
                JUMP_IF_AT_LEAST => next += choose(accumulator >= k),
                RETURN => return k,
                _ => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn each_call_is_answered_by_its_own_verdict() {
        let rest = vec![statement(RETURN, libc::SECCOMP_RET_TRAP)];
        // Alone, in runs, and at the beginning.
        let allowed = [0, 1, 2, 5, 7, 8, 200, 300, 301, 302];
        let refused = [3, 201, 202, 250];
        let examined = [4, 9, 303];
        let verdicts: BTreeMap<i64, Verdict> = allowed
            .map(|call| (call, Verdict::Allow))
            .into_iter()
            .chain(refused.map(|call| (call, Verdict::Refuse(libc::EPERM))))
            .chain(examined.map(|call| (call, Verdict::Examine)))
            .collect();
        let filter = by_number(&verdicts, Verdict::Refuse(libc::ENOSYS), rest).expect("a filter");
        for number in (0..400).chain([0x4000_0000, u32::MAX]) {
            let expected = match verdicts.get(&i64::from(number)) {
                Some(Verdict::Allow) => libc::SECCOMP_RET_ALLOW,
                Some(Verdict::Refuse(_)) => libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
                Some(Verdict::Examine) => libc::SECCOMP_RET_TRAP,
                None => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
            };
            assert_eq!(answer(&filter, seen(number, [0; 6])), expected, "{number}");
        }
        let other = Seen { architecture: 3 | 0x4000_0000, ..seen(0, [0; 6]) };
        assert_eq!(answer(&filter, other), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
