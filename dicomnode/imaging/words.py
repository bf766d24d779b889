"""Words by which headers name body parts, views and animals, in several languages.

Headers are free text in whatever language the department speaks. Text is compared without
case and accents: Latin words as whole words (`hip` is not in `ship`), stems at the start
of words, CJK and Arabic script anywhere. Body part terms: PS3.16 Annex L; the rest are
common names of protocols and examinations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass


def folded(text: str) -> str:
    """Without case and accents: `Bäcken` becomes `backen`."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


@dataclass(frozen=True)
class Vocabulary:
    """Words of one meaning, given as blank-separated lists."""

    words: str
    stems: str = ""
    anywhere: str = ""

    def named_in(self, texts: Iterable[str]) -> bool:
        """Whether any of the texts has one of the words."""
        whole = frozenset(folded(self.words).split())
        stems = tuple(folded(self.stems).split())
        parts = folded(self.anywhere).split()
        for text in texts:
            plain = folded(text)
            found = _WORD.findall(plain)
            if whole.intersection(found) or any(word.startswith(stems) for word in found):
                return True
            if any(part in plain for part in parts):
                return True
        return False


_WORD = re.compile(r"[^\W\d_]+")

CHEST = Vocabulary(
    "chest thorax thoraxe thorace torax toraks torace pecho lung lungs lunge lungen lunga polmone "
    "polmoni pulmon pulmones pulmonar pulmonary pulmao poumon poumons thoracic thoracique toracico "
    "toracica cxr rtx brustkorb brostkorg brystkasse rintakeha keuhkot klatka hrudnik hrudnika "
    "plice tudo mellkas gogus akciger longen nguc phoi paru",
    "chestpa chestap thoraxpa thoraxap toraksrontgen грудн грудк легк леген торак огк огп "
    "флюорограф θωρακ",
    "胸 肺 흉부 폐 الصدر חזה",
)

OTHER_PART = Vocabulary(
    "abdomen abdominal bauch buik ventre addome abdome spine cspine lspine tspine rachis columna "
    "colonna bws lws hws lumbar cervical lombaire lumbal vertebra vertebrae spinal rib ribs rippe "
    "costilla costillas costole sternum clavicle clavicula clavicule shoulder schulter epaule "
    "hombro spalla ombro humerus scapula elbow ellbogen coude codo gomito forearm wrist "
    "handgelenk hand mano finger thumb pelvis becken backen bassin bacino bacia hip hips hufte "
    "hanche cadera anca femur thigh knee knie genou rodilla ginocchio joelho patella leg lowerleg "
    "tibia fibula ankle cheville tobillo caviglia foot fuss pied piede toe toes calcaneus "
    "extremity skull schadel crane craneo cranio head kopf tete cabeza sinus sinuses facial "
    "mandible teeth tooth dental neck hals cuello collo orbit nose breast mamma mammo mammography "
    "sacrum coccyx skeleton babygram kub",
    "rippen wirbel brustwirbel halswirbel lendenwirbel brostrygg landrygg sprunggelenk "
    "schlusselbein позвоноч колен кист стоп таз череп плеч локот локт живот брюшн голен бедр ребр "
    "ребер скелет шейн пояснич",
    "腹 膝 骨盆 頭 头 脊 腰 肩 足 무릎 복부 골반",
)

LATERAL = Vocabulary(
    "lateral lateralis laterale lat ll lll rll llat rlat seitlich seitl profil profilo perfil "
    "boczne bocny zijdelings sida yan",
    "боков бічн πλαγι",
    "侧 側 측면 جانب",
)

FRONTAL = Vocabulary(
    "pa ap frontal posteroanterior anteroposterior postero antero frente face",
    "прям передн",
    "正位 정면 后前 後前",
)

SPECIAL_VIEW = Vocabulary(
    "oblique oblicua obliqua obliquo schrag lao rao lpo rpo llo rlo lld rld lordotic lordotica "
    "apicolordotic tangential axial",
    "косая",
    "斜",
)

DECUBITUS = Vocabulary("decubitus decub dekubitus")
SUPINE = Vocabulary("dorsal supine supino face ruckenlage")

ANIMAL = Vocabulary(
    "canine canis dog dogs puppy hund chien perro feline felis felina katze kitten equine equus "
    "horse pferd cheval caballo bovine cow porcine swine pig ovine sheep caprine goat avian bird "
    "parrot rabbit kaninchen rodent hamster mouse murine rat ferret reptile lizard turtle snake "
    "veterinary veterinaria veterinaire tierarzt primate macaque monkey",
    "собак кошк лайк ветерин",
    "犬 猫 宠物 動物",
)

HUMAN = Vocabulary("human homo sapiens mensch humain humano")


def names_turned_view(text: str) -> bool:
    """Oblique, lordotic or lateral decubitus; lying on the back is none of these."""
    if SPECIAL_VIEW.named_in([text]):
        return True
    return DECUBITUS.named_in([text]) and not SUPINE.named_in([text])
