//! The kernel sources, embedded in the program, and which file has which kernel.

/// One `.cu` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name within `kernels/`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Source {
    /// Names of its kernels: `KERNEL(name, threads, blocks)` at the start of a line.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("KERNEL(").and_then(|rest| rest.split(',').next()))
    }
}

macro_rules! embed {
    ($($file:literal),* $(,)?) => {
        &[$(Source {
            file: $file,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/", $file)),
        }),*]
    };
}

/// Every kernel file.
pub const SOURCES: &[Source] = embed![
    "adamw.cu",
    "attention_backward.cu",
    "attention_backward_fused_sm90.cu",
    "attention_backward_sm90.cu",
    "attention_forward.cu",
    "attention_forward_sm90.cu",
    "bias.cu",
    "cross_entropy.cu",
    "elementwise.cu",
    "embedding.cu",
    "gemm.cu",
    "gemm_sm90.cu",
    "muon.cu",
    "reduce.cu",
    "rmsnorm.cu",
    "rope.cu",
    "glu.cu",
];

/// What the files include, under the names they use.
pub const HEADERS: &[Source] = embed![
    "dev/async.cuh",
    "dev/attention.cuh",
    "dev/base.cuh",
    "dev/eights.cuh",
    "dev/epilogue.cuh",
    "dev/hopper.cuh",
    "dev/mma.cuh",
    "dev/parts.cuh",
    "dev/philox.cuh",
    "dev/quads.cuh",
    "dev/tiles.cuh",
    "dev/wgmma_shapes.cuh",
];

/// The file that has a kernel.
pub fn source_of(kernel: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|s| s.kernels().any(|k| k == kernel))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn files(folder: &str, ending: &str) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|e| format!("{folder}{}", e.unwrap().file_name().to_string_lossy()))
            .filter(|f| f.ends_with(ending))
            .collect()
    }

    #[test]
    fn every_file_is_embedded() {
        let names = |list: &[Source]| list.iter().map(|s| s.file.to_string()).collect::<BTreeSet<_>>();
        assert_eq!(names(SOURCES), files("", ".cu"));
        assert_eq!(names(HEADERS), files("dev/", ".cuh"));
    }

    #[test]
    fn kernel_names_are_unique() {
        let all: Vec<_> = SOURCES.iter().flat_map(|s| s.kernels()).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert!(all.len() > 40 && all.len() == distinct.len(), "{} of {}", distinct.len(), all.len());
        assert_eq!(source_of("gemm_nt_bf16").map(|s| s.file), Some("gemm.cu"));
        assert_eq!(source_of("gemm_nt_bf17"), None);
    }

    #[test]
    fn inline_ptx_only_in_the_wrappers() {
        for source in SOURCES {
            assert!(!source.text.contains("asm"), "{} has inline PTX", source.file);
            assert!(!source.text.contains("#include <"), "{} includes a system header", source.file);
        }
    }
}
