/* A probe of whether the system grants the threads that an OpenMP team is about to start.
 *
 * GNU OpenMP ends the process if the system refuses it a thread ("Thread creation failed"). So
 * before a team grows, as many threads as it lacks are started by pthread_create, with OpenMP's
 * stack size, and kept until all of them run. When they have ended, OpenMP can start its own. */
#ifndef CROPKIT_TEAM_H
#define CROPKIT_TEAM_H

/* Windows limits no program's threads, and lacks the signals that are kept from them here. */
#if defined(_OPENMP) && !defined(_WIN32)
#include <ctype.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The size of this thread's team, the thread itself included, after its last parallel region: a
 * smaller region ends the threads that it does not need. */
static __thread int cropkit_team;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int released;
} cropkit_gate;

typedef struct {
    cropkit_gate *gate;
    pthread_t thread;
    long number; /* the system's number of the thread, once it runs */
} cropkit_probe;

static void *cropkit_wait_at_gate(void *argument)
{
    cropkit_probe *probe = (cropkit_probe *)argument;
    pthread_mutex_lock(&probe->gate->lock);
#if defined(__linux__)
    probe->number = syscall(SYS_gettid);
#endif
    while (!probe->gate->released)
        pthread_cond_wait(&probe->gate->changed, &probe->gate->lock);
    pthread_mutex_unlock(&probe->gate->lock);
    return NULL;
}

/* Wait until the system has forgotten a joined thread, which counts against limits until then. */
static void cropkit_wait_until_gone(long number)
{
#if defined(__linux__)
    for (int n = 0; n < 100000 && syscall(SYS_tgkill, getpid(), number, 0) == 0; n++)
        sched_yield();
#else
    (void)number;
#endif
}

/* Bytes of OMP_STACKSIZE or GOMP_STACKSIZE as OpenMP reads them, 0 for the system's default. */
static size_t cropkit_stack_size(void)
{
    static const char *const names[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE"};
    for (int n = 0; n < 2; n++) {
        const char *text = getenv(names[n]);
        char *end;
        int shift = 10;
        if (!text)
            continue;
        while (isspace((unsigned char)*text))
            text++;
        const unsigned long size = strtoul(text, &end, 10);
        if (end == text || *text == '-')
            continue;
        while (isspace((unsigned char)*end))
            end++;
        if (*end) {
            switch (tolower((unsigned char)*end)) {
            case 'b': shift = 0; break;
            case 'k': shift = 10; break;
            case 'm': shift = 20; break;
            case 'g': shift = 30; break;
            default: continue;
            }
        }
        if (size <= SIZE_MAX >> shift)
            return (size_t)size << shift;
    }
    return 0;
}

/* Whether the system starts `count` more threads at once. */
static int cropkit_can_start(int count, size_t stack_size)
{
    cropkit_gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    cropkit_probe *probes = (cropkit_probe *)calloc((size_t)count, sizeof(*probes));
    pthread_attr_t attributes;
    sigset_t all, before;
    int started = 0;
    if (!probes)
        return 0;
    if (pthread_attr_init(&attributes) != 0) {
        free(probes);
        return 0;
    }
    if (stack_size) /* too small a size is ignored, as OpenMP does */
        (void)pthread_attr_setstacksize(&attributes, stack_size);
    /* The threads block all signals, so that none of the program's is delivered to them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; started < count; started++) {
        probes[started].gate = &gate;
        if (pthread_create(&probes[started].thread, &attributes, cropkit_wait_at_gate,
                &probes[started]) != 0)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_lock(&gate.lock);
    gate.released = 1;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
    for (int n = 0; n < started; n++)
        pthread_join(probes[n].thread, NULL);
    for (int n = 0; n < started; n++)
        cropkit_wait_until_gone(probes[n].number);
    pthread_attr_destroy(&attributes);
    pthread_cond_destroy(&gate.changed);
    pthread_mutex_destroy(&gate.lock);
    free(probes);
    return started == count;
}

/* Return the size of the team for this thread's next region: `wanted`, or the present size if the
 * system refuses more threads. */
static int cropkit_team_for(int wanted, size_t stack_size)
{
    const int have = cropkit_team > 1 && !omp_get_dynamic() ? cropkit_team : 1;
    if (wanted > have && !cropkit_can_start(wanted - have, stack_size))
        wanted = have;
    /* A region of one thread starts no team: the present one stays as it is. */
    if (wanted > 1)
        cropkit_team = wanted;
    return wanted;
}

static void cropkit_team_is_gone(void) { cropkit_team = 1; }

#else
static inline size_t cropkit_stack_size(void) { return 0; }
static inline int cropkit_team_for(int wanted, size_t stack_size)
{
    (void)stack_size;
    return wanted;
}
static inline void cropkit_team_is_gone(void) { }
#endif
#endif
