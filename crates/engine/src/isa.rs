//! Choice of the instruction set at run time: one body, compiled several times.

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for. NEON is the baseline of 64-bit ARM, so `Plain` uses it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// Whatever every processor of this architecture has.
    Plain,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
}

/// The best instruction set of this processor. `FINETUNER_ISA=plain|avx2` lowers it, for tests and measurements.
pub fn instruction_set() -> InstructionSet {
    static DETECTED: OnceLock<InstructionSet> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        let limit = std::env::var("FINETUNER_ISA").unwrap_or_default();
        detect(&limit)
    })
}

#[cfg(target_arch = "x86_64")]
fn detect(limit: &str) -> InstructionSet {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match limit {
        "plain" => InstructionSet::Plain,
        "avx2" if avx2 => InstructionSet::Avx2,
        _ if avx2 && avx512 => InstructionSet::Avx512,
        _ if avx2 => InstructionSet::Avx2,
        _ => InstructionSet::Plain,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect(_limit: &str) -> InstructionSet {
    InstructionSet::Plain
}

/// Whether products of bf16 numbers have an instruction of their own here: AVX-512 BF16, not lowered by `FINETUNER_ISA`.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        instruction_set() == InstructionSet::Avx512 && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Defines a function whose body is compiled for every [`InstructionSet`] and chosen when called.
///
/// The body is plain safe Rust that the compiler vectorises: fixed-width lane arrays for reductions, no fused
/// multiply-add, so that every instruction set computes the same bits.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                match $crate::isa::instruction_set() {
                    // SAFETY: `instruction_set` has checked that this processor has the enabled features.
                    $crate::isa::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::isa::InstructionSet::Plain => {}
                }
            }
            plain($($arg),*)
        }
    };
}
