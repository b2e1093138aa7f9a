"""Pieces: what a text costs at least, by the first steps of the tokenizer itself."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from itertools import pairwise

# The first merges of cl100k_base, in their order; blanks, newlines, tabs and returns are shown.
# The tokenizer makes the same ones before it makes any other, so a text never has more tokens
# than pieces here. Ordinary text has about half as many. The last are longer runs of one mark.
FIRST_MERGES = """
▁▁ ▁▁▁▁ in ▁t ▁▁▁▁▁▁▁▁ er ▁▁▁ on ▁a re at st en or ▁th ↵↵ ▁c le ▁s it an ar al ▁the ;↵ ▁p ▁f ou ▁=
is ▁▁▁▁▁▁▁ ing es ▁w ion ed ic ▁b ▁d et ▁m ▁o ⇥⇥ ro as el ct nd ▁in ▁h ent id ▁n am ▁▁▁▁▁▁▁▁▁▁▁ ▁to
▁re -- ▁{ ▁of om );↵ im ␍↵ ▁( il // ▁and ur se ▁l ex ▁S ad ▁" ch ut if ** ▁} em ol ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁
th )↵ ▁{↵ ▁g ig iv ,↵ ce od ▁v ate ▁T ag ay ▁* ot us ▁C ▁st ▁I un ul ue ▁A ow ▁' ew ▁< ation () ▁for
ab ort um ame ▁is pe tr ck ▁y ist ---- .↵↵ he ▁e lo ▁M ▁be ers ▁on ▁con ap ub ▁P ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ass
int >↵ ly urn ▁$ ;↵↵ av port ir -> nt ction end ▁de 00 ith out turn our ▁▁▁▁▁ lic res pt == ▁this
▁wh ▁if ▁D ver age ▁B ht ext =" ▁that **** ▁R ▁it ess ▁F ▁r os and ▁as ect ke rom ▁// con ▁L (" qu
lass ▁with iz de ▁N ▁al op up get ▁}↵ ile ▁an ata ore ri ▁pro ;␍↵ ⇥⇥⇥⇥ ter ain ▁W ▁E ▁com ▁return
art ▁H ack import ublic ▁or est ment ▁G able ▁- ine ill ind ere :: ity ▁+ ▁tr elf ight (' orm ult
str .. ", ▁you ype pl ▁new ▁j ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ▁from ▁ex ▁O 20 ld ▁[ oc :↵ ▁se ▁le -------- .s {↵
', ant ▁at ase .c ▁ch </ ave ang ▁are ▁int _t ert ial act }↵ ive ode ost ▁class ▁not og ord alue all
ff ();↵ ont ime are ▁U ▁pr ▁: ies ize ure ▁by ire ▁}↵↵ .p ▁sh ice ast ption tring ok __ cl ## ▁he
ard ). ▁@ iew ⇥⇥⇥ ▁was ip this ▁u ▁The ide ace ib ac rou ▁we ject ▁public ak ve ath oid ▁=> ust que
▁res )) 's ▁k ans yst unction ******** ▁i ▁us pp 10 one ail ==== name ▁str ▁/ ▁& ach div ystem ell
▁have err ould ull pon ▁J _p ▁== ign St .↵ ▁pl );↵↵ form put ount }↵↵ dd ite ▁get rr ome aram cc ▁*/
ER In les _s ong ie ▁can ▁V erv pr ▁un row ber ▁do ll ▁el ▁self ated ary ▁. '] ud ▁en ▁Th
▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ te _c uct ▁ab ork .get ▁# aw ress ob Name 201 app [' ▁all ory ition ance ear
▁cont vent ia ▁will IN ▁▁▁▁▁▁▁▁▁ return ▁</ data )↵↵ Re ple ild ther ▁your "↵ ($ ▁out ), ▁has String
so ▁up ax ▁def ▁bo ge alse ON per 12 ich ▁but ▁↵ ▁_ _m add quest odel self ery ft ens //// ake .C
▁go ▁function ▁K ivate ▁im ▁const .t ▁*/↵ );␍↵ ▁void ▁set ▁System cri ()↵ li ⇥if .m ally set ep bo
def ',↵ ▁me ▁! atch "> ",↵ ec ▁In ph ▁| _f ▁var ence Id ree ink lect ug eth ▁else ----------------
19 cont ▁so atic ▁lo pro ton ss own abel oint ous eld ST The ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ RE ":
olor tp eg key ude ▁St ound ▁ar ");↵ ener ser 11 bject essage fer ▁more ations ents ▁his ▁they .S ▁Y
use ne ish old _d io ield ▁per Cont ings #### ▁data ▁sa ef fo ▁one eng ▁dis AT ▁name ▁true val led
.f ▁ne ▁end 32 .T 16 cre ark log Ex error _id urre ange ▁null rray ▁my pan ict ator View List
⇥return ▁pre ▁x clude arg 15 ov .h ▁> ▁their ') irst ick gh LE OR ▁private tem ␍↵␍↵ user ▁) com .A
";↵ ▁id read ▁who _b ">↵ ▁time ▁man ry ======== roup rop public vel umber ble ▁which
**************** ▁any ▁false we ▁value ▁li ") nder gr ▁no param 25 fig .com ▁app _l ions .D ▁Ch
▁about ▁add ▁su ▁string ID ▁over string .l ource 000 _C ]↵ ▁qu ▁String ca SE ▁ro sh ual Type son new
ern ▁ag AR ];↵ ]. ▁? ical ▁des uth ix ays ▁type 't ault ▁inter var .b ▁part .d urrent IT EN 30 enc
(f ra value cho 18 utton ose 14 ▁!= ater reate oll pos yle ng AL using ames ▁{␍↵ ates ely ▁work ▁em
inal ▁sp ▁when .set ▁▁▁▁▁▁ ):↵ to quire indow lement pect ash [i ▁use .F pec ▁ad ove ception ength
include ader ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ atus Th itle rit void (). (↵ ▁off ▁other ▁&& ';↵ ms ▁been
▁te ml co nc 13 ervice ▁% **↵ ann ade ↵↵↵↵ lock const 100 ponse ▁sup ++ date ▁acc ▁had ▁bu 200 ▁Re
▁were ▁file ▁would ven iss ▁our class raw ▁year Data ▁val ▁some fter ys ▁/// round view ▁pe ▁there
▁said du of line /* duct ▁her ▁▁▁▁▁▁▁▁▁▁▁▁▁ Res ▁co ▁comm ise min ▁▁▁▁↵ #include ethod .P ute ▁ass
Int ask loc ▁like ody ▁let load ▁am rol ▁gr yp ▁also ▁It url ific ors _P _n igh ▁than Com AN UL
ating 17 ▁This ref _S ▁static roll ▁just ▁result ian idth ▁them ));↵ der reak Con :// ule ... arch
ement ▁<< 50 ush ense arr ▁into cess amp ied ument ▁\\ ], wo als ▁what anc Value =' olum ▁pos ages
ayer ▁sc ues ")↵ _T ▁list (s ▁case Ch ⇥⇥⇥⇥⇥ //////// ponent ▁z ▁kn let DE red ▁fe ▁},↵ ▁, (t ▁first
');↵ word ▁import ▁act ▁char CT ▁Tr ople ={ ⇥f 24 ient cent .j lection ))↵ ▁only ▁print mer .W ock
▁-- Text ▁op ank ▁its ▁back [" ▁need ▁cl ▁sub ▁la (( ." Object ▁start file (self ner ey ▁user ▁ent
▁Com its ▁Con ouble ower item very ▁We 64 lick ▁Q php ttp ': ics ▁under ▁*↵ .L ); ices ▁reg )␍↵
⇥public SS ▁then reat ious .G ek irect heck cript ning ▁Un ▁may ▁Wh Bo Item struct .st ream ible
loat ▁org und sum _in ../ _M ▁how rite '↵ To 40 ww ▁people index .n http (m ector ▁ind ▁jav ],↵ ▁He
_st ful ole ){↵ ▁should opy elp ier _name erson ION ote ▁test ▁bet rror ular bs ting ▁make Tr ▁after
arget RO olumn rc _re define 22 ▁right right day ▁long [] (p td cond ▁Pro ▁rem ptions vid .g ▁ext
▁__ ')↵ pace mp ▁min stance air action wh type util ait <? IC text ▁ph ▁fl .M ccess br fore ersion
),↵ .re ateg ▁loc ins -s trib ▁Int ▁array ," Pro (c ession >↵↵ ▁she "] aph ▁exp erty ▁Se ▁par unc ET
▁read print ▁rel ▁form ▁dr Exception input ▁trans ######## order By ▁aw ities uff play .add ▁want
▁comp ments ▁|| az be ▁number ▁require ▁Ex 60 ▁col ▁key ember ▁two ▁size ▁where UT result
▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ough orld ood uch ative ger arent ▁/* ▁arg ▁while 23 (this ▁rec ▁dif
State ▁spec ride _F ▁look AM ility eter ↵↵↵ ayout -------------------------------- ager ▁could ▁br
ends ures ▁know ets ▁If ▁Sh .w back ▁ser ▁+= ▁fr ());↵ ▁hand Ind ULL Im ();↵↵ ▁most ================
⇥⇥⇥⇥⇥⇥ ▁▁▁▁▁▁▁▁▁▁▁▁ ▁▁▁▁▁▁▁▁▁▁ .... //////////////// ____ ⇥⇥⇥⇥⇥⇥⇥⇥ ▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ################
⇥⇥⇥⇥⇥⇥⇥ ________ ........ ↵↵↵↵↵↵ ⇥⇥⇥⇥⇥⇥⇥⇥⇥ ▁~ ~~ ↵↵↵↵↵↵↵↵ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ________________
................ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ~~~~ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ↵↵↵↵↵ ----- ---------- ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ~~~~~~~~ .....
----------- ***** --------- ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ↵↵↵↵↵↵↵↵↵↵↵↵↵↵↵↵ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ↵↵↵↵↵↵↵↵↵↵ ......
⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ~~~~~~~~~~~~~~~~ ↵↵↵↵↵↵↵ ========= ↵↵↵↵↵↵↵↵↵↵↵↵ ===== ....... ↵↵↵↵↵↵↵↵↵ .........
↵↵↵↵↵↵↵↵↵↵↵↵↵↵ ##### _____ ↵↵↵↵↵↵↵↵↵↵↵ /////
"""
MERGES = {
    piece.translate(str.maketrans("▁↵⇥␍", " \n\t\r")): rank
    for rank, piece in enumerate(FIRST_MERGES.split())
}
NO_MERGE = len(MERGES)
TOKENS_PER_PIECE = 0.53
# How the tokenizer sets words apart; here in parts of 16 characters at most. Where one was cut, two
# pieces may have been merged that the tokenizer merges with what stands behind them.
LONGEST_PART = 16
WORD = re.compile(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?[A-Za-z]{1,16}|[0-9]{1,3}"
    r"| ?[^\sA-Za-z0-9]{1,16}[\r\n]{0,16}|\s{0,16}[\r\n]{1,16}|\s{1,16}(?!\S)|\s"
)
# Characters beyond ASCII that are one token each; of the others nearly each byte is one.
COMMON_CHARACTERS = (
    "¡-¬®-·¹-ÄÇÉÍÎÐÑÓÖ×ÚÜß-öø-ýāăąćčĐđēęěğīİıłńōőœřśşšţťūůűźżžơưșțəɵ̀́ά-ία-εη-νο-χωόЂА-ЕЗИК-ФЦЧЭЯ-я"
    "ёіאבדהוחילמנערשת،أإا-غف-يَ-ْپکگیंकतनपमरलसहा-ुेो्নরািে্ிு்്กขคงจชณ-ทน-ผพมยรลวสหอะ-ีืุูเแใไ็่้์ា"
    "ạảấầẩậắặếềểệỉịọỏốồổỗộớờởợụủứửữự‐‑–—―‘’‚“”„†•…‰′″›※₀₁₂€™←-↓−─━│═║╗╝█░■►●★☆☴♀♥♪✔⟩⠀、。《-】〜あ"
    "いうえお-きくけこ-すせそただちっつて-にのはばまみめもやよ-ろわをんアィイウェエオカキクグコサシ-セ"
    "タダチッテ-ニバパビ-プペポマムメャュョラ-ロン・ー一万三上下不与专业东两个中串为主么义之也书了"
    "事二于五些交产享京人亿今介从他付代以们件价任份企优会传但位体何余作你使例供価保信修倍值停像元先"
    "入全公共关其具内円册再写出击分列则初利别到制前力功加务动動包化北区十午华单南即历原去县参及友反"
    "发取变口只可台右号司合同名后向否含听启告员周命和品哈商問器四回因国图土在地场址型城基報場填增声"
    "处备复外多大天失头女好如始子字存学安宋完定实审客家容密对导将小少尔就局展山岁州工左已市布常平年"
    "并广序库应店度建开异式引张当录形影径待後得微心必志态思性总息您情意感成我或户所手打找技投报拉持"
    "指按换据排接推提播支收改放政效数整文料断新方族无日时明易星是時景更最月有服期木未本机权束条来板"
    "构析果查标样核格案检模次款止-步歳段每比民気水求江汽没治法注活流海消清游源火点無然片版物特率环"
    "现球理生用由电男画界番登的监目直相省看県真知码确示社票私种科秒称移程稍税稿空立站章端笑符第等签"
    "简算管箱米类系素索约级线组经结给络统编网置美老考者而联能自至色节英藏行表装西要見见规视角解言計"
    "記話読计认议记论设证评试话询该详语误说请读调象责败账货购费资起超路身车转软载辑输达过运近还这进"
    "连述退送选通速造連道邮部都配释里重量金钟钮链销错键长開間関门闭问间队阳陆限院除雅集雷需非面音页"
    "项预频题额首验高黑가간값개거게결경고공과구그글기나내는능니다당대도동되된드든들디라래러력로록료"
    "류른를름리만메면명목문미버번보복부분비사산상색생서성세션소수스습시식신아야어에여열오와요용우운"
    "원위으은을음의이인일임입자작장재적전정제져조주지진째체출치크태터턴트튼하한할함해호화환회️！（"
    "），-；＞？＾～･￥�"
)
# Runs of these are ornament, four to a token at least.
ORNAMENTS = "—…─═█"
# What a common character saves within a word, by the high byte of UTF-16: Cyrillic,
# Arabic, Devanagari.
WORD_SAVINGS = {0x04: 0.48, 0x06: 0.22, 0x09: 0.15}
UNCOMMON = re.compile(f"[^{COMMON_CHARACTERS}]+")
ASCII = bytes(range(0x80))
BEYOND_ASCII = re.compile("[^\x00-\x7f]+")
LEFT_OUT = "\xff"
TOKENS_PER_UNCOMMON_BYTE = 0.68
LONGEST_CUT_WHOLE = 2_000  # a longer text is sampled


@lru_cache(maxsize=10_000)
def count_pieces(word: str) -> int:
    """Into how many pieces the first merges put a word."""
    pieces = list(word)
    while len(pieces) > 1:
        ranks = [MERGES.get(first + second, NO_MERGE) for first, second in pairwise(pieces)]
        rank = min(ranks)
        if rank == NO_MERGE:
            break
        place = ranks.index(rank)
        pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
    return len(pieces)


def sample_text(text: str, samples: int, length: int) -> str:
    """Parts of a long text, at places that nobody can foresee, or its dear part would hide."""
    chance, apart = random.Random(hash(text)), len(text) // samples  # differs by process
    starts = (n * apart + chance.randrange(apart - length + 1) for n in range(samples))
    return "".join(text[start : start + length] for start in starts)


def least_tokens(text: str) -> float:
    """What the ASCII in a text costs at least."""
    read = text if len(text) <= LONGEST_CUT_WHOLE else sample_text(text, 8, LONGEST_CUT_WHOLE // 8)
    ascii_text, left_out = BEYOND_ASCII.subn(LEFT_OUT, read)
    parts = WORD.findall(ascii_text)
    cuts = sum(len(part) >= LONGEST_PART and not part.isspace() for part in parts)
    pieces = sum(map(count_pieces, parts)) + cuts - left_out
    return TOKENS_PER_PIECE * pieces * len(text) / len(read)


def tokens_beyond_ascii(text: str) -> float:
    """What the characters of a text that aren't ASCII cost; less than if each were alone."""
    for mark in ORNAMENTS:
        text = text.replace(4 * mark, mark)
    encoded = text.encode("utf-8").translate(None, ASCII)
    beyond = encoded.decode("utf-8")
    uncommon = "".join(UNCOMMON.findall(beyond))
    dear_bytes = len(uncommon.encode("utf-8"))
    tokens = len(beyond) - len(uncommon) + TOKENS_PER_UNCOMMON_BYTE * dear_bytes
    every, dear = (each.encode("utf-16-le")[1::2] for each in (beyond, uncommon))
    for block, saving in WORD_SAVINGS.items():
        tokens -= saving * (every.count(block) - dear.count(block))
    return tokens
