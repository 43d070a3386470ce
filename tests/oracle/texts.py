"""Questions and contexts of the golden files, written for this project: language, question, sentences."""

TEXTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "English",
        "Who looked after the library?",
        (
            "The library by the river opened in 1923, and Clara looked after it for forty years.",
            "Every Friday she read old stories to the children; the river, the mill and the moon were in all of them.",
            "When the flood came, the children carried 3,200 books up the hill in wooden boxes.",
            "Today the Library stands there still, and the hill is called Book Hill.",
        ),
    ),
    (
        "German",
        "Wann fährt die Seilbahn?",
        (
            "Die Seilbahn auf den Übersee-Gipfel fährt täglich um halb neun, außer bei Föhn.",
            "Oben verkauft Jörg Käse, Brot und heiße Schokolade; die Schokolade kostet 4,50 €.",
            "Wer zu Fuß geht, braucht drei Stunden und festes Schuhwerk.",
            "Im Winter gehört der Gipfel den Gämsen.",
        ),
    ),
    (
        "French",
        "Où habite l'horloger ?",
        (
            "L'horloger du village habite au-dessus de la boulangerie, chez sa sœur Élodie.",
            "Il répare des montres depuis l'âge de dix-sept ans et n'est jamais à l'heure.",
            "Aujourd'hui, il cherche un apprenti qui saurait aussi faire du café.",
        ),
    ),
    (
        "Turkish",
        "İstasyonda kim çalışıyor?",
        (
            "İstasyonda Işıl ve ISI adlı bir robot çalışıyor; ışıklar saat yedide yanıyor.",
            "Robot, yolculara çay veriyor ve trenlerin adını ezbere biliyor.",
            "Işıl ise her akşam şiir yazıyor.",
        ),
    ),
    (
        "Vietnamese",
        "Chợ nổi mở cửa lúc mấy giờ?",
        (
            "Chợ nổi trên sông mở cửa lúc năm giờ sáng và đóng cửa trước buổi trưa.",
            "Bà Hạnh bán bún, dừa và hoa sen từ chiếc thuyền màu xanh của bà.",
            "Du khách thường đến bằng xe đạp.",
        ),
    ),
    (
        "Swahili",
        "Nani anafundisha muziki?",
        (
            "Mwalimu Neema anafundisha muziki katika shule ndogo karibu na ziwa.",
            "Wanafunzi wake wanapiga ngoma asubuhi, na samaki husikiliza kutoka majini.",
            "Mwaka jana walishinda zawadi ya kwanza mjini.",
        ),
    ),
    (
        "Russian",
        "Где хранится колокол?",
        (
            "Старый колокол хранится в деревянной башне на острове, и звонят в него дважды в год.",
            "Сторож Пётр живёт на острове один, но зимой к нему по льду приходят рыбаки.",
            "Они приносят хлеб, соль и новости, а Пётр рассказывает о колоколе.",
            "Говорят, колокол слышно за двадцать километров.",
        ),
    ),
    (
        "Greek",
        "Τι φυτεύει η Ελένη;",
        (
            "Η Ελένη φυτεύει λεμονιές στην αυλή του παλιού σχολείου, κοντά στη θάλασσα.",
            "Τα παιδιά ποτίζουν τα δέντρα και μετρούν τα λεμόνια κάθε Σεπτέμβρη.",
            "Φέτος μέτρησαν 418 λεμόνια.",
        ),
    ),
    (
        "Arabic",
        "أين تقع المطبعة القديمة؟",
        (
            "تقع المطبعة القديمة خلف سوق العطارين، وقد أسسها يوسف سنة ١٨٩٧.",
            "كان يوسف يطبع الجرائد ليلا ويوزعها بنفسه على دراجته في الصباح.",
            "اليوم صارت المطبعة متحفا صغيرا تديره حفيدته ليلى.",
            "يأتي الطلاب إلى المتحف ليتعلموا صف الحروف.",
        ),
    ),
    (
        "Hebrew",
        "מי בנה את המגדלור?",
        (
            "את המגדלור בנה המהנדס דוד בשנת 1931, ומאז הוא מאיר את החוף בכל לילה.",
            "בתו נועה שומרת על המגדלור וכותבת ביומן כל ספינה שעוברת.",
            "ביומן יש כבר 12 כרכים.",
        ),
    ),
    (
        "Persian",
        "فرش را چه کسی بافت؟",
        (
            "این فرش را مریم در چهار سال بافت و نقش آن باغی با دو پرنده است.",
            "پرنده‌ها رو به رودخانه نشسته‌اند و رودخانه آبی است.",
            "فرش اکنون در خانهٔ پسرش در شیراز پهن است.",
        ),
    ),
    (
        "Thai",
        "ใครทำขนมที่ตลาด",
        (
            "คุณยายมาลีทำขนมครกที่ตลาดน้ำทุกวันเสาร์ตั้งแต่ตีสี่",
            "หลานชายของเธอพายเรือส่งขนมให้ลูกค้าตามบ้านริมคลอง",
            "ขนมหมดก่อนแปดโมงเช้าเสมอ",
        ),
    ),
    (
        "Chinese",
        "谁在修理古桥？",
        (
            "石匠老李正在修理村口的古桥，这座桥建于公元1204年。",
            "他每天从山上运来三块石头，午后在桥边喝茶。",
            "孩子们放学以后帮他数石头，一共数到了九百块。",
            "村民希望古桥在春节以前可以重新开放。",
        ),
    ),
    (
        "Japanese",
        "灯台はどこにありますか。",
        (
            "灯台は港の北の岬にあり、1911年から毎晩光っています。",
            "灯台守の佐藤さんは猫を三匹飼っていて、名前はウミ、ソラ、カゼです。",
            "夏になると子どもたちがスケッチをしに来ます。",
            "去年、東京タワーの展示で、その絵が飾られました。",
        ),
    ),
    (
        "Korean",
        "누가 도자기를 만드나요?",
        (
            "할아버지 김도윤은 산 아래 작은 가마에서 도자기를 만드십니다.",
            "흙은 강가에서 가져오고 유약은 소나무 재로 만든다고 합니다.",
            "손녀는 그 도자기에 물고기 그림을 그려 시장에서 팝니다.",
        ),
    ),
    (
        "Hindi",
        "पुस्तकालय कब खुलता है?",
        (
            "गाँव का पुस्तकालय सुबह सात बजे खुलता है और उसकी देखभाल सरिता करती है।",
            "सरिता ने पिछले साल २५० किताबें शहर से बैलगाड़ी में मँगवाईं।",
            "बच्चे शाम को आँगन में बैठकर कहानियाँ सुनते हैं।",
        ),
    ),
    (
        "Bengali",
        "নৌকাটি কে চালায়?",
        (
            "নৌকাটি রহিম চালায়, আর তার মেয়ে নদীর দুই পাড়ের গান জানে।",
            "বর্ষায় নদী বড় হলে ডাকঘরের চিঠিও এই নৌকায় আসে।",
            "গত বছর রহিম ৩৬৫ দিনই নদীতে ছিল।",
        ),
    ),
    (
        "Tamil",
        "மணியை யார் அடிக்கிறார்?",
        (
            "பள்ளியின் மணியை கண்ணன் தாத்தா ஒவ்வொரு காலையும் ஏழு மணிக்கு அடிக்கிறார்.",
            "அவர் மாமரத்தின் கீழ் அமர்ந்து குழந்தைகளுக்கு கணக்கு சொல்லித் தருகிறார்.",
            "மழை நாளில் மணி இரண்டு முறை ஒலிக்கும்.",
        ),
    ),
    (
        "Amharic",
        "ቡናውን ማን ያፈላል?",
        (
            "አልማዝ በየቀኑ ጠዋት ከቤተ መጻሕፍቱ አጠገብ ቡና ታፈላለች።",
            "ተማሪዎች ቡናውን ጠጥተው ስለ ታሪክ ይወያያሉ፤ ዋጋው አምስት ብር ነው።",
            "ክረምት ሲመጣ ሁሉም በእሳት ዙሪያ ይቀመጣሉ።",
        ),
    ),
    (
        "Georgian",
        "ვინ მოჰყავს ყურძენი?",
        (
            "ყურძენი ბებია ნინოს მოჰყავს მთის ფერდობზე, სოფლის ძველ მარანთან.",
            "შემოდგომაზე მთელი ოჯახი იკრიბება და ღვინოს თიხის ქვევრში ასხამს.",
            "ქვევრი 1888 წელს გააკეთა მისმა ბაბუამ.",
        ),
    ),
    (
        "Armenian",
        "Ո՞վ է նվագում դուդուկ։",
        (
            "Դուդուկ նվագում է Արամը, որն ապրում է լճի մոտ գտնվող քարե տանը։",
            "Նրա եղբայրը գործիքներ է պատրաստում ծիրանենու փայտից։",
            "Կիրակի օրերը նրանք միասին նվագում են հրապարակում։",
        ),
    ),
    (
        "emoji",
        "Which 🐙 won the 🏆?",
        (
            "🐙 Otto won the 🏆 on 🗓️ Friday 🎉🎉 because 🦀 and 🐠 slept 😴 too long 👩‍👩‍👧‍👦.",
            "Then ﬁve ½-price ｶﾞﾗｽ balloons 🎈 flew over the ＣＩＴＹ 🌆 — #party №7 🇯🇵!",
            "Otto said: 𝓽𝓱𝓪𝓷𝓴 𝔂𝓸𝓾 🙏🏽 ❤️ and went home 🏠.",
        ),
    ),
)
