/*
 * Which functions a program runs, in the order in which they are first come to: a breakpoint at each is taken away
 * when it is met. x86-64 only.
 *
 *   touched ADDRESSES OUTPUT PROGRAM [ARGUMENT...]
 *
 * ADDRESSES is a file with the start of each function, in hexadecimal, one a line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct function {
    unsigned long at;
    unsigned char byte;
    int met;
};

static int fail(const char *what)
{
    fprintf(stderr, "touched: %s: %s\n", what, strerror(errno));
    return 125;
}

static int by_address(const void *a, const void *b)
{
    unsigned long x = ((const struct function *)a)->at, y = ((const struct function *)b)->at;
    return x < y ? -1 : x > y;
}

static int poke_byte(pid_t pid, unsigned long at, unsigned char byte, unsigned char *old)
{
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, pid, (void *)at, NULL);
    if (errno)
        return -1;
    if (old)
        *old = word & 0xff;
    word = (word & ~0xffL) | byte;
    return ptrace(PTRACE_POKETEXT, pid, (void *)at, (void *)word);
}

int main(int argc, char **argv)
{
    static struct function functions[1 << 16];
    size_t count = 0;
    if (argc < 4)
        return fprintf(stderr, "touched ADDRESSES OUTPUT PROGRAM [ARGUMENT...]\n"), 125;
    FILE *input = fopen(argv[1], "r"), *output = fopen(argv[2], "w");
    if (!input || !output)
        return fail("a file");
    while (count < (1 << 16) && fscanf(input, "%lx", &functions[count].at) == 1)
        count++;
    qsort(functions, count, sizeof *functions, by_address);
    pid_t first = fork();
    if (first < 0)
        return fail("fork");
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execvp(argv[3], argv + 3);
        _exit(fail(argv[3]));
    }
    int status;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, NULL,
           PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    for (size_t i = 0; i < count; i++) {
        if (poke_byte(first, functions[i].at, 0xcc, &functions[i].byte) < 0)
            return fail("PTRACE_POKETEXT");
    }
    ptrace(PTRACE_CONT, first, NULL, NULL);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            return fail("waitpid");
        if (!WIFSTOPPED(status)) {
            if (pid != first)
                continue;
            fclose(output);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_EXEC) {
            /* Another program. */
            ptrace(PTRACE_DETACH, pid, NULL, NULL);
            continue;
        }
        if (signal == SIGTRAP && !event) {
            struct user_regs_struct registers;
            ptrace(PTRACE_GETREGS, pid, NULL, &registers);
            struct function wanted = {.at = registers.rip - 1};
            struct function *found = bsearch(&wanted, functions, count, sizeof *functions, by_address);
            if (!found)
                return fail("a breakpoint of somebody else");
            if (!found->met)
                fprintf(output, "%lx\n", found->at);
            found->met = 1;
            poke_byte(pid, found->at, found->byte, NULL);
            registers.rip = found->at;
            ptrace(PTRACE_SETREGS, pid, NULL, &registers);
            signal = 0;
        }
        if (event || signal == SIGSTOP || signal == SIGTRAP)
            signal = 0;
        ptrace(PTRACE_CONT, pid, NULL, signal);
    }
}
