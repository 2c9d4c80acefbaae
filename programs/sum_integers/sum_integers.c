/* Prints the sum of the integers from the first argument up to, but not including, the second.
 *
 * As a WASI program:    clang --target=wasm32-wasi -O2 -o sum_integers.wasm sum_integers.c
 * As a native program:  cc -O2 -static -o sum_integers sum_integers.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int read_integer(const char *text, long long *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return end != text && *end == '\0' && errno == 0;
}

int main(int argc, char **argv) {
    long long from, to;
    if (argc != 3 || !read_integer(argv[1], &from) || !read_integer(argv[2], &to)) {
        fprintf(stderr, "usage: sum_integers FROM TO\n");
        return 2;
    }
    long long sum = 0;
    for (long long number = from; number < to; number++) {
        if (__builtin_add_overflow(sum, number, &sum)) {
            fprintf(stderr, "the sum does not fit into 64 bits\n");
            return 1;
        }
    }
    printf("%lld\n", sum);
    /* What was not written is no result. */
    return fflush(stdout) == 0 ? 0 : 1;
}
