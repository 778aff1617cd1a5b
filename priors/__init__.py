"""What is known of poses and shapes before any image: adversaries, lifters, limits, mixtures and dictionaries."""

from .adversarial import gradient_penalty as gradient_penalty
from .adversarial import hinge_discriminator_loss as hinge_discriminator_loss
from .adversarial import hinge_generator_loss as hinge_generator_loss
from .adversarial import lsgan_discriminator_loss as lsgan_discriminator_loss
from .adversarial import lsgan_generator_loss as lsgan_generator_loss
from .adversarial import r1_penalty as r1_penalty
from .adversarial import wasserstein_discriminator_loss as wasserstein_discriminator_loss
from .discriminator import FactorizedDiscriminator as FactorizedDiscriminator
from .discriminator import JointReport as JointReport
