/// Messages that carry a plaintext or a token, by full name. Read by the build script and by tests.
pub(crate) const CARRIERS: [&str; 8] = [
    "cinnabar.v1.NewSecret",
    "cinnabar.v1.SetValueRequest",
    "cinnabar.v1.ConsumerTokenReply",
    "cinnabar.v1.Found",
    "cinnabar.v1.JoinTokenReply",
    "cinnabar.v1.TokenReply",
    "cinnabar.internal.v1.JoinRequest",
    "cinnabar.internal.v1.HandOverRequest",
];
