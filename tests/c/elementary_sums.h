/*  What test_elementary.c prints.  */
#define SUM_exp 0x76cab13b56c5830cull
#define SUM_expm1 0x1c132e3495eef039ull
#define SUM_log 0xc17735182b60419cull
#define SUM_log1p 0x501e2440ded5be29ull
#define SUM_tanh 0x34bf7281c3fdcf52ull
#define SUM_sigmoid 0x68bdaa5b2d6679afull
#define SUM_softplus 0x271289b23be9b8dcull
#define SUM_sin 0xf22fc44cb224c0c9ull
#define SUM_cos 0x026300977b783122ull
#define SUM_erf 0x93ffc0f6fba54359ull
#define SUM_sinh 0x9bc3d48116c17709ull
#define SUM_cosh 0xf5a797c735f736f1ull
#define SUM_pow 0x02f9c5ff6962c25full
