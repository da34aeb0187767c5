/*  What test_elementary.c prints.  */
#define SUM_exp 0x974dc3cd55007858ull
#define SUM_expm1 0xc2bca00614f4b9d4ull
#define SUM_log 0xc17735182b60419cull
#define SUM_log1p 0x501e2440ded5be29ull
#define SUM_tanh 0x3aedd72f6bcc5040ull
#define SUM_sigmoid 0x228af02cef5e07eaull
#define SUM_softplus 0x5642633014f87d33ull
#define SUM_sin 0xf22fc44cb224c0c9ull
#define SUM_cos 0x026300977b783122ull
#define SUM_erf 0x93ffc0f6fba54359ull
#define SUM_sinh 0x9bc3d48116c17709ull
#define SUM_cosh 0xf5a797c735f736f1ull
#define SUM_pow 0xcbfc983074ef0efbull
