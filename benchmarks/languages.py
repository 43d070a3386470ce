"""Language identification as people do it today: langid and lingua, each asked only about languages that it knows.

They tell languages, `mini` tells languages with their script and many dialects. So all answers are compared as the
codes of ISO 639-1, in which Arabic, Chinese and Serbian are one language each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import langid
from lingua import Language, LanguageDetector, LanguageDetectorBuilder

Sentence = tuple[str, str]
Detect = Callable[[Sequence[str]], list[str]]

_CODES = (
    "afr_Latn:af als_Latn:sq amh_Ethi:am arb_Arab:ar acm_Arab:ar acq_Arab:ar aeb_Arab:ar apc_Arab:ar arq_Arab:ar "
    "ars_Arab:ar ary_Arab:ar arz_Arab:ar asm_Beng:as azj_Latn:az bel_Cyrl:be ben_Beng:bn bos_Latn:bs bre_Latn:br "
    "bul_Cyrl:bg cat_Latn:ca ces_Latn:cs cym_Latn:cy dan_Latn:da deu_Latn:de dzo_Tibt:dz ell_Grek:el eng_Latn:en "
    "epo_Latn:eo est_Latn:et eus_Latn:eu fao_Latn:fo fin_Latn:fi fra_Latn:fr gle_Latn:ga glg_Latn:gl guj_Gujr:gu "
    "hat_Latn:ht heb_Hebr:he hin_Deva:hi hrv_Latn:hr hun_Latn:hu hye_Armn:hy ind_Latn:id isl_Latn:is ita_Latn:it "
    "jav_Latn:jv jpn_Jpan:ja kan_Knda:kn kat_Geor:ka kaz_Cyrl:kk khk_Cyrl:mn khm_Khmr:km kin_Latn:rw kir_Cyrl:ky "
    "kmr_Latn:ku kor_Hang:ko lao_Laoo:lo lat_Latn:la lit_Latn:lt ltz_Latn:lb lug_Latn:lg lvs_Latn:lv mal_Mlym:ml "
    "mar_Deva:mr mkd_Cyrl:mk mlt_Latn:mt mri_Latn:mi nld_Latn:nl nno_Latn:nn nob_Latn:nb npi_Deva:ne oci_Latn:oc "
    "ory_Orya:or pan_Guru:pa pbt_Arab:ps pes_Arab:fa prs_Arab:fa plt_Latn:mg pol_Latn:pl por_Latn:pt quy_Latn:qu "
    "ron_Latn:ro rus_Cyrl:ru sin_Sinh:si slk_Latn:sk slv_Latn:sl sme_Latn:se sna_Latn:sn som_Latn:so sot_Latn:st "
    "spa_Latn:es srp_Cyrl:sr srp_Latn:sr swe_Latn:sv swh_Latn:sw tam_Taml:ta tel_Telu:te tgl_Latn:tl tha_Thai:th "
    "tsn_Latn:tn tso_Latn:ts tur_Latn:tr uig_Arab:ug ukr_Cyrl:uk urd_Arab:ur vie_Latn:vi xho_Latn:xh yor_Latn:yo "
    "zho_Hans:zh zho_Hant:zh zsm_Latn:ms zul_Latn:zu"
)
# Of the labels of `mini`.
CODES: Mapping[str, str] = dict(pair.split(":") for pair in _CODES.split())
# langid has Norwegian twice over.
_SAME = {"no": "nb"}


def detect_langid(texts: Sequence[str]) -> list[str]:
    """What langid says, codes of ISO 639-1."""
    return [_SAME.get(code, code) for code, _ in map(langid.classify, texts)]


def detect_lingua(texts: Sequence[str]) -> list[str]:
    """What lingua says with all its languages and its large models; "" where it says nothing."""
    found = _lingua().detect_languages_in_parallel_of(list(texts))
    return [language.iso_code_639_1.name.lower() if language else "" for language in found]


@cache
def _lingua() -> LanguageDetector:
    return LanguageDetectorBuilder.from_all_languages().build()


def codes_of(name: str) -> set[str]:
    """The languages that a tool knows, codes of ISO 639-1."""
    if name == "langid":
        return {_SAME.get(code, code) for code, _ in langid.rank("")}
    return {language.iso_code_639_1.name.lower() for language in Language.all()}


TOOLS: dict[str, Detect] = {"langid": detect_langid, "lingua": detect_lingua}


def right_by_label(name: str, sentences: Iterable[Sentence]) -> dict[str, list[int]]:
    """How a tool does on (label, text): right answers and all sentences of each label whose language it knows."""
    codes = codes_of(name)
    asked = [(label, text) for label, text in sentences if CODES.get(label) in codes]
    said = TOOLS[name]([text for _, text in asked])
    right = Counter(label for (label, _), code in zip(asked, said, strict=True) if CODES[label] == code)
    total = Counter(label for label, _ in asked)
    return {label: [right[label], total[label]] for label in sorted(total)}
