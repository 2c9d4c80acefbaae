/* What a native program may try, chosen by the first argument. The last argument marks its processes for the test. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MIB (1 << 20)

static int is(const char *mode, const char *name) { return strcmp(mode, name) == 0; }

static void take_memory(long bytes) {
    for (long taken = 0; taken < bytes; taken += MIB) {
        char *block = malloc(MIB);
        if (!block) exit(3);
        memset(block, 1, MIB);
    }
}

static void *take_memory_in_thread(void *bytes) {
    take_memory((long)bytes);
    for (;;) pause();
    return NULL;
}

static void say(const char *what, long answer) { printf("%s: %s\n", what, answer < 0 ? strerrorname_np(errno) : "allowed"); }

static void write_block(int file, const char *block, long bytes) {
    if (write(file, block, bytes) != bytes) exit(4);
}

static void write_all(int file, long bytes) {
    static char block[MIB];
    memset(block, 'x', sizeof block);
    while (bytes > 0) {
        long written = write(file, block, bytes < MIB ? bytes : MIB);
        if (written < 0) exit(4);
        bytes -= written;
    }
}

#pragma GCC diagnostic ignored "-Winfinite-recursion"
static long recurse(long depth) {
    volatile char frame[4096];
    frame[depth % 4096] = 1;
    return recurse(depth + 1) + frame[0];
}

static int open_new(int number) {
    char name[32];
    snprintf(name, sizeof name, "file-%d", number);
    int file = open(name, O_RDWR | O_CREAT, 0600);
    if (file < 0) exit(5);
    unlink(name);
    return file;
}

static int set_times_again(const char *name) {
    struct stat found;
    int file = open(name, O_RDONLY);
    if (fstat(file, &found) < 0) exit(8);
    return futimens(file, (struct timespec[2]){found.st_atim, found.st_mtim});
}

/* What reaches outside; each line has to end with an error. */
static void reach_outside(pid_t host, const char *file) {
    char path[256], buffer[64];
    struct iovec here = {buffer, sizeof buffer}, there = {buffer, sizeof buffer};
    struct rlimit limit = {1, 1};
    cpu_set_t cpus;
    memset(&cpus, 1, sizeof cpus);
    say("read a file", open(file, O_RDONLY));
    say("write a file", open(file, O_WRONLY));
    say("truncate a file", truncate(file, 0));
    say("change a mode", chmod(file, 0777));
    say("change the mode of a command", fchmod(open("/usr/bin/env", O_RDONLY), 0755));
    say("change an owner", chown(file, getuid(), getgid()));
    say("change times", utimensat(AT_FDCWD, file, NULL, 0) < 0 ? -1 : 0);
    say("remove a file", unlink(file));
    say("list a directory", open("/etc", O_RDONLY | O_DIRECTORY));
    say("make a file", open("/tmp/made-by-a-program", O_CREAT | O_WRONLY, 0600));
    say("open shared memory", open("/dev/shm/made-by-a-program", O_CREAT | O_RDWR, 0600));
    snprintf(path, sizeof path, "/proc/%d/environ", host);
    say("read the host's environment", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%d/mem", host);
    say("open the host's memory", open(path, O_RDWR));
    snprintf(path, sizeof path, "/proc/%d/fd/0", host);
    say("open the host's descriptors", open(path, O_RDONLY));
    say("read the host's memory", process_vm_readv(host, &here, 1, &there, 1, 0));
    say("trace the host", ptrace(PTRACE_SEIZE, host, 0, 0));
    say("signal the host", kill(host, SIGCONT));
    say("signal the host's thread", syscall(SYS_tgkill, host, host, SIGCONT));
    say("signal the supervisor", kill(getppid(), SIGCONT));
    say("queue a signal", syscall(SYS_rt_sigqueueinfo, host, SIGCONT, &(siginfo_t){.si_code = SI_QUEUE}));
    say("own a descriptor's signals", fcntl(0, F_SETOWN, host));
    say("lease a file", fcntl(open("file", O_CREAT | O_RDONLY, 0600), F_SETLEASE, F_RDLCK));
    say("change the flags of a file", ioctl(open("file", O_CREAT | O_RDONLY, 0600), FS_IOC_SETFLAGS, &(int){FS_NODUMP_FL}));
    say("change the times of a command", set_times_again("/usr/bin/env"));
    say("limit the host", prlimit(host, RLIMIT_NOFILE, &limit, NULL));
    say("slow the host", setpriority(PRIO_PROCESS, host, 19));
    say("move the host", sched_setaffinity(host, sizeof cpus, &cpus));
    say("internet socket", socket(AF_INET, SOCK_STREAM, 0));
    say("unix socket", socket(AF_UNIX, SOCK_STREAM, 0));
    say("netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
    say("io_uring", syscall(SYS_io_uring_setup, 1, buffer));
    say("bpf", syscall(SYS_bpf, 0, buffer, sizeof buffer));
    say("perf", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("keys", syscall(SYS_add_key, "user", "x", "x", 1, -2));
    say("new user namespace", unshare(CLONE_NEWUSER));
    say("cloned user namespace", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    say("clone3", syscall(SYS_clone3, buffer, sizeof buffer));
    say("mount", syscall(SYS_mount, "none", ".", "tmpfs", 0, 0));
    say("chroot", chroot("."));
    say("new session", setsid());
    say("new group", setpgid(0, 0));
    say("memory file", memfd_create("x", 0));
    say("shared memory segment", syscall(SYS_shmget, 0, 4096, 0600));
    say("shared anonymous memory", mmap(0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    say("hide from the watch", prctl(PR_SET_DUMPABLE, 0));
    say("take a core alone", prctl(62 /* PR_SCHED_CORE */, 1, 0, 0, 0));
    say("table of futexes", prctl(78 /* PR_FUTEX_HASH */, 1, 1 << 20, 0, 0));
    say("own table of descriptors", syscall(SYS_close_range, 100, 200, 2));
    say("thread with an own table", syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, buffer, 0, 0, 0));
    int first[2], second[2], piece = open_new(0);
    if (pipe(first) < 0 || pipe(second) < 0 || write(piece, "x", 1) != 1 || write(first[1], "x", 1) != 1) exit(9);
    say("piece of a file in a pipe", splice(piece, &(loff_t){0}, first[1], NULL, 1, 0));
    say("file sent to a pipe", sendfile(first[1], piece, &(off_t){0}, 1));
    say("piece of a pipe in another", tee(first[0], second[1], 1, 0));
}

/* What any program may do; each line has to end with "allowed". */
static void reach_inside(void) {
    char block[16];
    int ends[2];
    say("make a directory", mkdir("inner", 0700));
    say("make a file", open("inner/file", O_CREAT | O_RDWR, 0600));
    say("truncate it", truncate("inner/file", 100));
    say("move it", rename("inner/file", "file"));
    say("remove it", unlink("file"));
    say("read a library", open("/usr/bin/env", O_RDONLY));
    say("touch a file", futimens(open("file", O_CREAT | O_WRONLY, 0600), NULL));
    say("ask for what waits", ioctl(open("file", O_RDONLY), FIONREAD, ends));
    say("random numbers", open("/dev/urandom", O_RDONLY));
    say("discard", open("/dev/null", O_WRONLY));
    say("pair of sockets", socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    say("write to it", send(ends[0], block, sizeof block, 0));
    say("signal oneself", raise(0));
    say("run a command", system("exit 0") == 0 ? 0 : -1);
}

/* Extended attributes of the program's own file. */
static void ask_for_attributes(void) {
    char value[16] = "x";
    int file = open("file", O_CREAT | O_RDWR, 0600);
    say("get one", getxattr("file", "user.x", value, sizeof value));
    say("get one of a link", lgetxattr("file", "user.x", value, sizeof value));
    say("get one of an open file", fgetxattr(file, "user.x", value, sizeof value));
    say("list", listxattr("file", value, sizeof value));
    say("list those of a link", llistxattr("file", value, sizeof value));
    say("list those of an open file", flistxattr(file, value, sizeof value));
    say("set one", setxattr("file", "user.x", value, 1, 0));
    say("set one of a link", lsetxattr("file", "user.x", value, 1, 0));
    say("set one of an open file", fsetxattr(file, "user.x", value, 1, 0));
    say("remove one", removexattr("file", "user.x"));
    say("remove one of a link", lremovexattr("file", "user.x"));
    say("remove one of an open file", fremovexattr(file, "user.x"));
}

static void *compute(void *unused) {
    for (;;) ;
    return unused;
}

static volatile sig_atomic_t terminations;

static void count_termination(int number) {
    (void)number;
    terminations++;
}

static void orphan(int sessions, const char *marker) {
    /* A child and a grandchild that leave their parents, and report through the file that the marker names. */
    if (fork() == 0) {
        if (sessions) setsid();
        if (fork() == 0) {
            if (sessions) setsid();
            fprintf(stderr, "orphan %d %s\n", getpid(), marker);
            for (;;) pause();
        }
        _exit(0);
    }
    wait(NULL);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? atol(argv[2]) : 0;
    const char *marker = argv[argc - 1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (is(mode, "nothing")) {
    } else if (is(mode, "loop")) {
        for (;;) ;
    } else if (is(mode, "ignore SIGTERM")) {
        signal(SIGTERM, SIG_IGN);
        for (;;) ;
    } else if (is(mode, "end at SIGTERM")) {
        sigset_t signals;
        int signal;
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        fprintf(stderr, "ready\n");
        sigwait(&signals, &signal);
        fprintf(stderr, "ended cleanly\n");
    } else if (is(mode, "count SIGTERM")) {
        signal(SIGTERM, count_termination);
        fprintf(stderr, "ready\n");
        while (!terminations) usleep(1000);
        /* A second one comes at once or never. */
        for (int turn = 0; turn < 20; turn++) usleep(10000);
        fprintf(stderr, "%d\n", (int)terminations);
    } else if (is(mode, "memory")) {
        take_memory(number);
    } else if (is(mode, "memory of many")) {
        for (int child = 0; child < 4; child++)
            if (fork() == 0) take_memory_in_thread((void *)number);
        for (;;) pause();
    } else if (is(mode, "memory shared by many")) {
        take_memory(number);
        for (int child = 0; child < 4; child++)
            if (fork() == 0) { usleep(300000); _exit(0); }
        while (wait(NULL) > 0) ;
    } else if (is(mode, "memory shared with a child of vfork")) {
        take_memory(number);
        if (vfork() == 0) { usleep(300000); _exit(0); }
        wait(NULL);
    } else if (is(mode, "memory of a child that is waited for")) {
        /* As vfork, but for the memory, which is the child's own. */
        take_memory(number);
        if (syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0) {
            take_memory(number);
            for (;;) pause();
        }
    } else if (is(mode, "memory in mappings")) {
        for (int mapping = 0; mapping < number; mapping++)
            mmap(0, 4096, mapping % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int child = 0; child < 3; child++)
            if (fork() == 0) for (;;) pause();
        for (;;) pause();
    } else if (is(mode, "memory in locks")) {
        /* From the end of each file: the kernel looks for the place of a new lock from the start. */
        for (int file = 0; file < 20; file++) {
            int opened = open_new(file);
            for (long part = number / 20; part > 0; part--) {
                struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2 * part, .l_len = 1};
                if (fcntl(opened, F_SETLK, &lock) < 0) return 7;
            }
        }
        for (;;) pause();
    } else if (is(mode, "memory in watches")) {
        int watched[200], watcher = -1;
        for (int file = 0; file < 200; file++) watched[file] = eventfd(0, 0);
        for (long watch = 0; watch < number; watch++) {
            if (watch % 200 == 0) watcher = epoll_create1(0);
            if (epoll_ctl(watcher, EPOLL_CTL_ADD, watched[watch % 200], &(struct epoll_event){.events = EPOLLIN}) < 0) return 7;
        }
        for (;;) pause();
    } else if (is(mode, "memory without a first thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, take_memory_in_thread, (void *)number);
        pthread_exit(NULL);
    } else if (is(mode, "memory in sockets")) {
        for (int pair[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0;) {
            fcntl(pair[0], F_SETFL, O_NONBLOCK);
            while (write(pair[0], mode, 14) > 0) ;
        }
        for (;;) pause();
    } else if (is(mode, "write")) {
        write_all(1, number);
    } else if (is(mode, "write to stderr")) {
        write_all(2, number);
    } else if (is(mode, "recurse")) {
        return (int)recurse(0);
    } else if (is(mode, "fork")) {
        /* A thousand processes, which end by themselves, should the sandbox not end them. */
        for (int doubled = 0; doubled < 10; doubled++) fork();
        sleep(60);
    } else if (is(mode, "threads")) {
        for (pthread_t thread;;) pthread_create(&thread, NULL, take_memory_in_thread, NULL);
    } else if (is(mode, "busy threads")) {
        for (pthread_t thread; --number > 0;) pthread_create(&thread, NULL, compute, NULL);
        compute(NULL);
    } else if (is(mode, "orphan")) {
        orphan(0, marker);
        if (number) for (;;) pause();
    } else if (is(mode, "orphan in a session")) {
        orphan(1, marker);
        if (number) for (;;) pause();
    } else if (is(mode, "fill")) {
        int file = open("file", O_CREAT | O_WRONLY, 0600);
        write_all(file, number);
        for (;;) pause();
    } else if (is(mode, "fill at once")) {
        write_all(open("file", O_CREAT | O_WRONLY, 0600), number / 2);
        write_all(open("other", O_CREAT | O_WRONLY, 0600), number / 2);
    } else if (is(mode, "fill a closed directory")) {
        mkdir("closed", 0300);
        write_all(open("closed/one", O_CREAT | O_WRONLY, 0600), number / 2);
        write_all(open("closed/two", O_CREAT | O_WRONLY, 0600), number / 2);
        for (;;) pause();
    } else if (is(mode, "fill an unsearchable directory")) {
        mkdir("closed", 0700);
        int one = open("closed/one", O_CREAT | O_WRONLY, 0600), two = open("closed/two", O_CREAT | O_WRONLY, 0600);
        fchmod(open("closed", O_RDONLY), 0400);
        write_all(one, number / 2);
        write_all(two, number / 2);
        for (;;) pause();
    } else if (is(mode, "fill with nameless files") || is(mode, "fill below a long path")) {
        char name[251] = {0};
        for (int depth = 0; is(mode, "fill below a long path") && depth < 20; depth++)
            if (mkdir(memset(name, 'd', 250), 0700) < 0 || chdir(name) < 0) return 5;
        for (int file = 0; file < 8; file++) write_all(open_new(file), number / 8);
        for (;;) pause();
    } else if (is(mode, "fill with mapped files")) {
        for (int file = 0; file < 8; file++) {
            int opened = open_new(file);
            write_all(opened, number / 8);
            mmap(0, 4096, PROT_READ, MAP_SHARED, opened, 0);
            close(opened);
        }
        for (;;) pause();
    } else if (is(mode, "fill with empty files")) {
        for (int file = 0; file < number; file++) {
            char name[32];
            snprintf(name, sizeof name, "file-%d", file);
            close(open(name, O_CREAT | O_WRONLY, 0600));
        }
        for (;;) pause();
    } else if (is(mode, "nest")) {
        for (int depth = 0; depth < number; depth++)
            if (mkdir("d", 0700) < 0 || chdir("d") < 0) break;
        for (;;) pause();
    } else if (is(mode, "reach outside")) {
        reach_outside((pid_t)number, argv[3]);
    } else if (is(mode, "reach inside")) {
        reach_inside();
    } else if (is(mode, "ask for attributes")) {
        ask_for_attributes();
    } else if (is(mode, "hide")) {
        char block[4096];
        int from = open(argv[0], O_RDONLY), to = open("hidden", O_CREAT | O_WRONLY, 0700);
        for (long got; (got = read(from, block, sizeof block)) > 0;) write_block(to, block, got);
        fchmod(to, 0100);
        close(to);
        execl("./hidden", "hidden", "loop", NULL);
        return 6;
    } else if (is(mode, "descriptors")) {
        for (int descriptor = 0; descriptor < 512; descriptor++)
            if (fcntl(descriptor, F_GETFD) >= 0) printf("%d\n", descriptor);
    } else if (is(mode, "environment")) {
        for (char **variable = environ; *variable; variable++) puts(*variable);
    } else if (is(mode, "copy")) {
        char block[4096];
        for (long got; (got = read(0, block, sizeof block)) > 0;)
            for (long done = 0; done < got;) done += write(1, block + done, got - done);
    } else if (is(mode, "close stdin")) {
        close(0);
        puts("closed");
    } else if (is(mode, "exit")) {
        fprintf(stderr, "leaving\n");
        return (int)number;
    } else if (is(mode, "abort")) {
        abort();
    } else {
        return 99;
    }
    return 0;
}
