/*  Functions over lanes are compiled for wider vectors, too, where compiler and loader can choose between them.  */
#ifndef TG_CLONES_H
#define TG_CLONES_H

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
