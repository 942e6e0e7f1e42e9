/*
 * The bare floor of a launch, as a process of its own: a group, five limits, a command in it, and everything away
 * again. No check, no read-back, no name, no verdict; nothing that confines a command can do with fewer system calls.
 *
 *   floor PARENT NAME COMMAND [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const LIMITS[][2] = {
    {"memory.high", "67108864"}, {"memory.max", "100663296"}, {"cpu.max", "200000 100000"},
    {"pids.max", "64"},          {"memory.oom.group", "1"},
};

static int fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    return 125;
}

int main(int argc, char **argv, char **envp)
{
    if (argc < 4)
        return 125;
    int parent = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0 || mkdirat(parent, argv[2], 0755) < 0)
        return fail(argv[2]);
    int group = openat(parent, argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (group < 0)
        return fail(argv[2]);
    for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++) {
        int file = openat(group, LIMITS[i][0], O_WRONLY | O_CLOEXEC);
        if (file < 0 || write(file, LIMITS[i][1], strlen(LIMITS[i][1])) < 0)
            return fail(LIMITS[i][0]);
        close(file);
    }
    struct clone_args args = {
        .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        return fail("clone3");
    if (pid == 0) {
        execve(argv[3], argv + 3, envp);
        _exit(127);
    }
    int status;
    while (waitpid((pid_t)pid, &status, 0) < 0)
        if (errno != EINTR)
            return fail("waitpid");
    while (unlinkat(parent, argv[2], AT_REMOVEDIR) < 0)
        if (errno != EBUSY)
            return fail("rmdir");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
