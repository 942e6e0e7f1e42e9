//! A program whose first instruction forks. No runtime and no loader runs before it, as one would in a program that a
//! compiler makes: what is attached to a group after it has begun to run is too late.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lab::Lab;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the program below is written for x86_64 only");

// Forks twice, which makes four processes. Each waits for its children, then writes its own /proc/self/cgroup to its
// standard output: a process forked outside a group stays outside, so the time of reading does not matter.
core::arch::global_asm!(
    ".pushsection .rodata",
    ".globl cgmgr_first_fork, cgmgr_first_fork_end",
    "cgmgr_first_fork:",
    "mov eax, 57", // fork
    "syscall",
    "mov eax, 57", // fork
    "syscall",
    "2:",
    "mov eax, 61", // wait4(-1, 0, 0, 0) until there is no child
    "mov rdi, -1",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "syscall",
    "test rax, rax",
    "jg 2b",
    "mov eax, 2", // open(path, O_RDONLY)
    "lea rdi, [rip + 3f]",
    "xor esi, esi",
    "syscall",
    "mov edi, eax", // read(it, buffer, 4096)
    "xor eax, eax",
    "sub rsp, 4096",
    "mov rsi, rsp",
    "mov edx, 4096",
    "syscall",
    "mov edx, eax", // write(1, buffer, what was read)
    "mov eax, 1",
    "mov edi, 1",
    "mov rsi, rsp",
    "syscall",
    "mov eax, 60", // exit(0)
    "xor edi, edi",
    "syscall",
    "3:",
    ".asciz \"/proc/self/cgroup\"",
    "cgmgr_first_fork_end:",
    ".popsection",
);

unsafe extern "C" {
    static cgmgr_first_fork: u8;
    static cgmgr_first_fork_end: u8;
}

/// Writes the program into the test's folder: its path.
pub fn program(lab: &Lab) -> String {
    let (begin, end) = (&raw const cgmgr_first_fork, &raw const cgmgr_first_fork_end);
    // SAFETY: the assembler put these labels around one read-only block.
    let code = unsafe { std::slice::from_raw_parts(begin, end as usize - begin as usize) };
    let path = lab.path("first-fork");
    fs::write(&path, elf(code)).expect("a program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}

/// The smallest ELF executable around position-independent code: a header, and one segment that is the whole file.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let halves =
        |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let words = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    halves(&mut file, &[2, 62]); // ET_EXEC, EM_X86_64
    file.extend(1_u32.to_le_bytes());
    words(&mut file, &[BASE + HEADERS, 64, 0]); // entry, program headers, no sections
    file.extend(0_u32.to_le_bytes());
    halves(&mut file, &[64, 56, 1, 0, 0, 0]);
    file.extend(1_u32.to_le_bytes()); // PT_LOAD
    file.extend(5_u32.to_le_bytes()); // readable, executable
    let size = HEADERS + code.len() as u64;
    words(&mut file, &[0, BASE, BASE, size, size, 0x1000]);
    file.extend(code);
    file
}
