"""A network of each timm family: the smallest that has weights, and the side of the smallest pictures that it takes.

Weights are random and no branch is switched off, so that what holds here holds for every weight.
"""

from __future__ import annotations

import torch
from torch import nn

from autobackbone.backbones.blocks import head_parameter_names
from autobackbone.backbones.head import head_weights, set_head

# Those that train in a second on two cores.
QUICK = {
    "byobnet": ("test_byobnet", 32),
    "convnext": ("test_convnext", 32),
    "efficientnet": ("test_efficientnet", 32),
    "efficientvim": ("efficientvim_m1", 128),
    "inception_v3": ("inception_v3", 96),
    "metaformer": ("poolformerv2_s12", 64),
    "mobilenetv3": ("mobilenetv3_small_050", 32),
    "mobilevit": ("mobilevit_xxs", 32),
    "nfnet": ("test_nfnet", 32),
    "pit": ("pit_ti_224", 224),
    "regnet": ("regnetx_002", 32),
    "repghost": ("repghostnet_050", 32),
    "resnet": ("test_resnet", 32),
    "rexnet": ("rexnet_100", 32),
    "vision_transformer": ("test_vit", 32),
    "xcit": ("xcit_nano_12_p16_224", 32),
}
SLOW = {
    "beit": ("beit_base_patch16_224", 32),
    "byoanet": ("eca_botnext26ts_256", 256),
    "cait": ("cait_xxs24_224", 224),
    "coat": ("coat_tiny", 32),
    "convit": ("convit_tiny", 224),
    "convmixer": ("convmixer_768_32", 32),
    "cpubone": ("cpubone_nano", 32),
    "crossvit": ("crossvit_tiny_240", 240),
    "csatv2": ("csatv2", 64),
    "cspnet": ("cs3darknet_focus_s", 32),
    "cspnext": ("cspnext_tiny", 32),
    "davit": ("davit_tiny", 32),
    "deit": ("deit_tiny_patch16_224", 32),
    "densenet": ("densenet121", 32),
    "dla": ("dla46x_c", 32),
    "dpn": ("dpn68", 32),
    "edgenext": ("edgenext_xx_small", 32),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 224),
    "efficientvit_mit": ("efficientvit_b0", 32),
    "efficientvit_msra": ("efficientvit_m0", 128),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 32),
    "fasternet": ("fasternet_t0", 32),
    "fastvit": ("fastvit_t8", 32),
    "focalnet": ("focalnet_tiny_srf", 32),
    "gcvit": ("gcvit_xxtiny", 224),
    "gemma4_vit": ("gemma4_vit_167m", 32),
    "ghostnet": ("ghostnet_100", 32),
    "hardcorenas": ("hardcorenas_b", 32),
    "hgnet": ("hgnetv2_b0", 32),
    "hiera": ("hiera_tiny_224", 224),
    "hieradet_sam2": ("sam2_hiera_tiny", 32),
    "hrnet": ("hrnet_w18_small", 32),
    "iformer": ("iformer_t", 64),
    "inception_next": ("inception_next_atto", 32),
    "inception_resnet_v2": ("inception_resnet_v2", 96),
    "inception_v4": ("inception_v4", 96),
    "lcnetv2": ("lcnetv2_small", 32),
    "levit": ("levit_128s", 224),
    "lowformer": ("lowformer_b0", 32),
    "mambaout": ("mambaout_femto", 32),
    "maxxvit": ("maxvit_rmlp_pico_rw_256", 64),
    "mlp_mixer": ("resmlp_12_224", 224),
    "mvitv2": ("mvitv2_tiny", 64),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 32),
    "nasnet": ("nasnetalarge", 32),
    "nest": ("nest_tiny_jx", 224),
    "nextvit": ("nextvit_small", 32),
    "pnasnet": ("pnasnet5large", 32),
    "pvt_v2": ("pvt_v2_b0", 32),
    "qwen3_vit": ("qwen3_vit_88m", 32),
    "rdnet": ("rdnet_tiny", 32),
    "repvit": ("repvit_m0_9", 32),
    "res2net": ("res2next50", 32),
    "resnest": ("resnest14d", 32),
    "resnetv2": ("resnetv2_18", 32),
    "selecsls": ("selecsls60", 32),
    "senet": ("legacy_seresnet18", 32),
    "sequencer": ("sequencer2d_s", 224),
    "shvit": ("shvit_s1", 32),
    "sknet": ("skresnet18", 32),
    "starnet": ("starnet_s1", 32),
    "swiftformer": ("swiftformer_xs", 32),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 64),
    "swin_transformer_v2": ("swinv2_tiny_window16_256", 64),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_ns_224", 64),
    "tiny_vit": ("tiny_vit_5m_224", 32),
    "tnt": ("tnt_s_legacy_patch16_224", 32),
    "tresnet": ("tresnet_m", 32),
    "twins": ("twins_svt_small", 32),
    "vgg": ("vgg11", 32),
    "visformer": ("visformer_tiny", 224),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 32),
    "vision_transformer_relpos": ("vit_srelpos_small_patch16_224", 32),
    "vitamin": ("vitamin_small_224", 32),
    "volo": ("volo_d1_224", 224),
    "vovnet": ("ese_vovnet19b_dw", 32),
    "xception": ("legacy_xception", 32),
    "xception_aligned": ("xception41p", 32),
}
# Those that are too large for a test on two cores.
LARGE = {
    "deepseek_vit": ("deepseek_vit_412m", 28),
    "mobilenetv5": ("mobilenetv5_300m", 32),
    # It has no weights, but is the smallest with the layers of those that have, whose pictures are of 1,024 px.
    "vision_transformer_sam": ("samvit_base_patch16_224", 224),
}


def wake(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Let branches that begin at zero take part, such as layer scales and the last batch norm of a block.

    Args:
        model: a timm network with random weights; it is changed in place.
        seed: of the numbers that take the place of constants.
    """
    generator = torch.Generator().manual_seed(seed)
    head = set(head_parameter_names(model))
    for key, parameter in model.named_parameters():
        values = parameter.detach()
        if key not in head and bool((values == values.flatten()[0]).all()):
            parameter.data.add_(torch.empty_like(parameter).uniform_(0.1, 0.3, generator=generator))
    # Some families start from a head of zeros, through which no gradient passes.
    weight, bias = head_weights(model)
    set_head(model, torch.empty_like(weight).normal_(generator=generator), bias)
    return model
