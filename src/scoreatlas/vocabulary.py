"""The words with which ``references.bib`` describes a system; anything else is refused by ``scoreatlas.knowledge``."""

# The solver families carry the names of the folders of scoreatlas.solvers.
FAMILIES = {
    "backbone": "generative models and what they are trained on: the prior itself",
    "sampler": "ways to walk from noise to an image with a given network",
    "architecture": "networks that denoise, and how they take in time and conditions",
    "guidance": "a gradient of the likelihood, or of a classifier, is added to the score",
    "projection": "the denoised estimate is replaced or corrected where it was measured",
    "splitting": "a step on the data alternates with a denoising step",
    "variational": "an estimate, or a law around it, is optimised under the prior",
    "particles": "weighted samples correct the proposals of a solver",
    "latent": "inverse problems solved in the space of an autoencoder",
    "blind": "the operator is estimated together with the image",
    "paired": "a network trained for one task, mostly on pairs of measurement and image or of image and label",
    "distilled": "fewer steps or smaller networks, learnt from a larger model",
    "classical": "solvers without a network",
    "editing": "changing an image through its latent noise or its Jacobian",
    "design": "choosing what to measure",
    "analysis": "looking into trained denoisers and benchmarks of solvers",
    "theory": "identities and theorems",
    "survey": "overviews and lecture notes",
}

# What a method asks for beyond a pre-trained denoiser and the forward operator.
NEEDS = {
    "training": "training of its own",
    "backprop": "gradients through the network",
    "svd": "a singular value decomposition or an orthonormal operator",
    "autoencoder": "an autoencoder",
    "text": "text and its encoder",
    "pairs": "paired data",
    "classifier": "a classifier",
}

TASKS = frozenset({
    "acceleration", "anomaly-detection", "augmentation", "colourisation", "compressed-sensing", "compression",
    "conditional-generation", "correspondence", "ct-reconstruction", "deblurring", "dehazing", "demosaicking",
    "denoising", "deraining", "editing", "generation", "hdr", "inpainting", "inversion", "likelihood", "low-light",
    "measurement-design", "motion-generation", "mri-reconstruction", "novel-view", "phase-retrieval",
    "pose-estimation", "registration", "representation", "restoration", "segmentation", "speech-enhancement",
    "super-resolution", "taxonomy", "text-to-image", "theory", "turbulence",
})  # fmt: skip

MODALITIES = frozenset({
    "any", "audio", "ct", "hyperspectral", "image", "infrared", "motion", "mri", "pet", "pose", "ultrasound",
    "video", "volume", "xray",
})  # fmt: skip

DIFFICULTIES = {"S": "half a day, CPU minutes", "M": "one or two days, GPU minutes", "L": "only the mechanism is small"}

SUITES = frozenset({"budget", "cards", "exact", "field", "gmm", "gmm800", "images", "large", "tuning"})

CHAPTERS = {
    "1": "Introduction",
    "2.1": "Diffusion basics",
    "2.2": "Algorithms and variants",
    "2.3": "Guidance",
    "2.4": "Plug-and-play",
    "2.5": "Scores and flows",
    "2.6": "Architectures",
    "3": "Inverse problems",
    "3.1": "Super-resolution",
    "3.2": "Inpainting",
    "3.3": "Turbulence",
    "3.4": "Blurring",
    "3.5": "Phase retrieval",
    "3.6": "MRI and CT",
    "4.0": "Posterior sampling, measured against the truth",
    "4.1": "Plug-and-play restoration",
    "4.2": "Replacing, projecting, guiding, splitting",
    "4.3": "Blind restoration",
    "4.4": "Latent, adapter and paired restoration",
    "4.5": "The Gaussian-mixture benchmark",
    "4.6": "What a step costs",
    "4.7": "How wrong is each method? Exactness cards",
    "4.8": "Quality against cost",
    "4.9": "A failure gallery",
    "5": "Medical imaging",
    "6": "Segmentation and control",
    "7": "Distillation and acceleration",
    "8": "Discrete, low-rank and other domains",
    "9": "Controllable generation and correspondence",
    "A.1": "Tweedie's formula",
    "A.2": "Total variation",
    "A.3": "The learned priors",
    "P": "The prior implicit in a denoiser",
}

# The part of a chapter number before the dot: columns of the coverage matrix.
PARTS = {
    "1": "Introduction",
    "2": "Foundations",
    "3": "Inverse problems",
    "4": "Restoration",
    "5": "Medical imaging",
    "6": "Segmentation",
    "7": "Distillation",
    "8": "Other domains",
    "9": "Control",
    "A": "Appendix",
    "P": "Implicit prior",
}
