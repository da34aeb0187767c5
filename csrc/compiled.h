/*  How functions are compiled: within who calls them, apart, and for wider vectors, too.  */
#ifndef TG_COMPILED_H
#define TG_COMPILED_H

#include <stdint.h>         /* says __GLIBC__ */

/* Apart: who calls it saves no registers for its sake. A file may have it without a call. */
#if defined(_MSC_VER)
#define TG_INLINE static __forceinline
#define TG_OUTSIDE static __declspec(noinline)
#else
#define TG_INLINE static inline __attribute__((always_inline))
#define TG_OUTSIDE static __attribute__((noinline, unused))
#endif

/* Before a loop over lanes, whose turns have nothing to do with each other, whatever its pointers look like: gcc makes
   no vectors without, and of the few that there are a loop; clang has the loop look where they point. */
#if defined(__GNUC__) && !defined(__clang__)
#define TG_TURNS_APART _Pragma("GCC ivdep") _Pragma("GCC unroll 4")
#else
#define TG_TURNS_APART
#endif

/* 0.0 that the compiler does not see through: of a few zeros that follow one another gcc makes `rep stos`, which takes
   longer to begin than as many stores. */
TG_INLINE double tg_zero(void)
{
    double zero = 0.0;
#if defined(__GNUC__)
    __asm__("" : "+m"(zero));
#endif
    return zero;
}

/* Functions over lanes, where compiler and loader can choose between the vectors that there are. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__has_attribute) &&                     \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#if __has_attribute(target_clones)
#define TG_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#endif
#ifndef TG_CLONES
#define TG_CLONES
#endif

#endif
