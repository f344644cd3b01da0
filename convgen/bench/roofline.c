// Peak float32 multiply-add rate and copy bandwidth: roofline <threads> <bytes>... prints one JSON value.
// The vector is as wide as the machine's registers; 12 accumulators cover the latency of two pipes and fit 16 registers.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
typedef float vec __attribute__((vector_size(BYTES)));
enum { LANES = BYTES / 4, ACCUMULATORS = 12, STEPS = 200000, REPEATS = 9 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

typedef struct {
    pthread_barrier_t *barrier;
    char *source, *target;
    size_t bytes;   // of source; 0: arithmetic
    long rounds;
    double begin, end;
    float sink;
} Work;

// Twelve variables and not an array: an array would live in memory and be measured instead.
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define START(i) vec c##i = b + i;
#define STEP(i) c##i = c##i * a + b;
#define KEEP(i) "+x"(c##i),
#define SUM(i) + c##i[0]

static float arithmetic(void) {
    vec a, b;
    for (int l = 0; l < LANES; l++) { a[l] = 0.999f; b[l] = 0.001f * l; }
    EACH(START)
    for (long s = 0; s < STEPS; s++) {
        EACH(STEP)
        __asm__ volatile("" : EACH(KEEP) "+x"(b));  // the compiler must not skip or merge steps
    }
    return 0 EACH(SUM);
}

static void *work(void *argument) {
    Work *w = argument;
    if (w->bytes) { memset(w->source, 1, w->bytes); memcpy(w->target, w->source, w->bytes); }
    else w->sink = arithmetic();
    pthread_barrier_wait(w->barrier);
    w->begin = now();
    for (long r = 0; r < w->rounds; r++) {
        if (w->bytes) { memcpy(w->target, w->source, w->bytes); __asm__ volatile("" : : "r"(w->target) : "memory"); }
        else w->sink += arithmetic();
    }
    w->end = now();
    return 0;
}

// Seconds from the first thread's start to the last one's end, the best of several.
static double best(int threads, size_t bytes, long rounds) {
    double least = 1e30;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        pthread_t id[threads];
        Work w[threads];
        pthread_barrier_t barrier;
        pthread_barrier_init(&barrier, 0, threads);
        for (int t = 0; t < threads; t++) {
            w[t] = (Work){&barrier, 0, 0, bytes, rounds, 0, 0, 0};
            if (bytes) { w[t].source = aligned_alloc(64, bytes); w[t].target = aligned_alloc(64, bytes); }
            if (pthread_create(&id[t], 0, work, &w[t])) exit(1);
        }
        double begin = 1e30, end = 0;
        for (int t = 0; t < threads; t++) {
            pthread_join(id[t], 0);
            if (w[t].begin < begin) begin = w[t].begin;
            if (w[t].end > end) end = w[t].end;
            free(w[t].source), free(w[t].target);
        }
        pthread_barrier_destroy(&barrier);
        if (end - begin < least) least = end - begin;
    }
    return least;
}

int main(int count, char **word) {
    int threads = count > 1 ? atoi(word[1]) : 1;
    double flops = 2.0 * LANES * ACCUMULATORS * STEPS * 4 * threads;
    printf("{\"lanes\": %d, \"gflops\": %.6g, \"copy\": [", LANES, flops / best(threads, 0, 4) * 1e-9);
    for (int i = 2; i < count; i++) {
        size_t each = (size_t)atoll(word[i]) / 2 / threads & ~(size_t)63;  // half is read, half is written
        long rounds = (64 << 20) / (each * threads) + 1;
        double seconds = best(threads, each, rounds);
        printf("%s[%s, %.6g]", i > 2 ? ", " : "", word[i], 2.0 * each * threads * rounds / seconds * 1e-9);
    }
    printf("]}\n");
    return 0;
}
