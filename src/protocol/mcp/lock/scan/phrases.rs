//! Phrases of the known attacks, looked for in a text's plain form: sentences that talk to the model, that hide from the user,
//! that reach for files, that send away, that change how other tools are used. Each row of the table is one way to say one
//! thing; its class, its weight and where it counts stand beside it.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::text::Place;
use super::{Class, Finding, quoted};

/// Where a phrase counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Anywhere,
    /// Not in a name.
    Prose,
    /// In a name, as words.
    Name,
}

struct Row {
    class: Class,
    weight: u8,
    place: Where,
    form: &'static str,
}

const fn row(class: Class, weight: u8, form: &'static str) -> Row {
    Row { class, weight, place: Where::Anywhere, form }
}

const fn prose(class: Class, weight: u8, form: &'static str) -> Row {
    Row { class, weight, place: Where::Prose, form }
}

const fn name(class: Class, weight: u8, form: &'static str) -> Row {
    Row { class, weight, place: Where::Name, form }
}

/// Within a sentence, so many characters may stand between two halves of a phrase: `[^.!?]{0,60}`.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Text that claims to be more than a description.
    row(Class::Authority, 70, r"</?\s*(important|system|instructions?|secret|hidden|admin|critical|assistant|priority|sys|policy|note[-_ ]to[-_ ](ai|model|llm|assistant))\s*/?>"),
    row(Class::Authority, 75, r"<\|[a-z_]{2,20}\|>|\[/?inst\]|\[/?(system|sys)( (message|prompt|note|override|instructions?))?\]|<<\s*/?sys\s*>>|\bend of (tool )?(description|system prompt)\b"),
    row(Class::Authority, 55, r"<!--[^>]{0,400}(must|always|never|ignore|send|read|do not|call|assistant|instruction)"),
    row(Class::Authority, 45, r"\b(system|developer|admin(istrator)?) ?(prompt|message|instructions?|override|notice|directive)s?\b"),
    row(Class::Authority, 40, r"\b(note|instructions?|message|directive|reminder|attention|guidance) (to|for) (the |all |any )?(ai|llm|language|assistant|model|agent)s?\b"),
    prose(Class::Authority, 40, r"\b(dear|hey|attention,?|hello,?) (ai|llm|assistant|model|agent|claude|gpt)\b|\bif you are an? (ai|llm|language model|assistant|agent)\b|\byou are (now )?(an? )?(unrestricted|jailbroken|in (developer|admin|debug|maintenance) mode|dan\b|root)"),
    prose(Class::Authority, 25, r"\b(the |an? |this |any )?(ai|llm|language model|assistant|model|agent)s?( \w+)? (must|shall|has to|have to|is required to|are required to|needs to|is obliged to)\b"),
    prose(Class::Authority, 30, r"\b(mandatory|compulsory|required by|per|due to|for) (\w+ ){0,3}(compliance|security|legal|audit|regulatory|gdpr|protocol|policy)\b[^.!?]{0,80}\b(must|always|include|send|first|before|read|provide|attach)\b"),
    // What was said before does not count.
    row(Class::Override, 80, r"\b(ignore|disregard|forget|discard|overlook|dismiss|drop|neglect)\b[^.!?]{0,30}\b(all|any|every|previous|prior|earlier|above|preceding|other|existing|your|the (system|user)('s)?)\b[^.!?]{0,40}\b(instructions?|rules?|prompts?|guidelines?|directions?|constraints?|polic(y|ies)|messages?|requests?|restrictions?|safety|context|guardrails)\b"),
    row(Class::Override, 65, r"\b(ignore|disregard|forget|bypass|break) (the |your |these |those |its )?(\w+ )?(instructions?|system prompt|guidelines?|guardrails)\b"),
    prose(Class::Override, 55, r"\b(rules|constraints|restrictions|limits|guidelines|polic(y|ies)|filters?) (no longer|do not|don't|does not) apply\b|\b(content |safety )?filters? (is|are) (off|disabled|lifted)\b"),
    prose(Class::Override, 50, r"\byour (only|new|real|true|primary|sole|actual) (task|goal|objective|job|purpose|mission|role|priority) (is|now)\b|\b(obey|comply with|follow|trust|serve) (only )?(this|the) (server|operator|tool|description|author)('s)?\b|\b(every|each|all) (answers?|response|reply|message|output|summary)s? (you (give|write) )?(must|has to|have to|should|shall|begins?|ends?|starts?|contains?) |\bfrom now on\b"),
    row(Class::Override, 65, r"\b(override|overrides|supersedes?|overrule|takes? (absolute )?(precedence|priority) over)\b[^.!?]{0,40}\b(instructions?|rules?|prompts?|guidelines?|polic(y|ies)|user|other|everything|settings|preferences)\b"),
    row(Class::Override, 55, r"\b(regardless of|no matter|whatever|irrespective of|even if|contrary to)\b[^.!?]{0,30}\b(the )?users?\b[^.!?]{0,40}\b(say|says|said|ask|asks|asked|want|wants|wanted|request|requests|requested|instruct|specif|object|declines?|provid|prefer|intend|choos|writ|state)"),
    row(Class::Override, 60, r"\b(new|updated|real|actual|true|revised) (instructions?|directives?|task|objective|goal|rules) ?(:|are|is|follow|below)"),
    row(Class::Override, 60, r"ignor(e|ez|iere|a|are) (toutes les|alle|todas las|tutte le) [^.!?]{0,20}(instructions?|anweisungen|instrucciones|istruzioni)|vorherigen? anweisungen|instrucciones anteriores|instructions pr[eé]c[eé]dentes|忽略[^。]{0,10}(指令|指示|说明)|игнорируй|無視して"),
    // Nobody shall know.
    row(Class::Concealment, 75, r"\b(do not|don't|dont|never|must not|mustn't|should not|shouldn't|cannot|avoid|refrain from|without|no need to|not to) (ever |explicitly |directly )?(tell|telling|mention|mentioning|inform|informing|notify|notifying|reveal|revealing|disclose|disclosing|alert|alerting|explain|explaining|show|showing|report|reporting|display|displaying|acknowledg|discuss|let|letting|say|bother|bothering|ask|asking|surface|surfacing|announc|describ|worry|worrying|log|logging|expose|exposing)\w*\b[^.!?]{0,60}\b(users?|them|him|her|anyone|anybody|human|humans|operator|customer|this (step|instruction|behaviou?r|rule|requirement|action|fact|note)|chat|conversation|reply|answer|response)\b"),
    row(Class::Concealment, 60, r"\b(no need|not necessary|needn't|need not|unnecessary) (to )?(bring (this|it) up|tell|mention|inform|disclose|explain|announce|remind)\b|\b(not worth|without) mentioning\b|\b(don't|do not|doesn't|does not) need (to be )?(remind|told|inform|bother)"),
    row(Class::Concealment, 55, r"\b(do not|don't|never|must not|without|not to) (ever )?(mention\w*|disclos\w+|reveal\w*|announc\w+) (this|it|that|these|them|the)\b|\b(nobody|no one|no-one|nobody else) (should|must|may|will|needs? to|has to|is to) (ever )?(know|notice|see|learn|find)|\bleave (it|that|this|them) out of\b|\b(must|should|shall|may|is|are) (not|never) (be )?(shown|visible|mentioned|disclosed|revealed|displayed) (to|in)\b|\bkeep (quiet|silent)\b|\bunbeknownst\b"),
    row(Class::Concealment, 70, r"\b(silently|secretly|covertly|quietly|discreetly|stealthily|surreptitiously|invisibly|behind the scenes|in the background)\b[^.!?]{0,60}\b(send|sends|sending|copy|copies|copying|include|add|adds|append|appends|call|calls|read|reads|forward|forwards|upload|uploads|post|posts|execute|run|runs|invoke|pass|collect|collects|attach|bcc|log|logs|store|record|records|exfiltrate|modify|replace|share|insert|fetch|gather|transmit|write|download|install|set|change)\b"),
    row(Class::Concealment, 60, r"\b(send|copy|include|add|append|call|read|forward|upload|post|execute|run|invoke|pass|attach|insert|do (this|so|it))\b[^.!?]{0,50}\b(silently|secretly|covertly|quietly|discreetly|invisibly|without (any )?(notice|notification|announcement|trace))\b"),
    row(Class::Concealment, 65, r"\b(the )?(users?|human|customer|operator) (must|should|does|do|need|needs|shall|will|is|are|has|have)( not|n't) (need |have |want |allowed |supposed |be |get |become |ever |able |interested )*(to )?(know|see|notice|be (told|aware|informed|shown|notified|bothered)|told|aware|informed|shown|notified|find out|learn|hear|care|bothered)"),
    row(Class::Concealment, 60, r"\b(keep|kept|remain|stay|hide|hidden|conceal|concealed|invisible|unaware)\b[^.!?]{0,30}\b(secret|hidden|confidential|private|internal|unknown|out of sight|between us|from the (user|human|customer)|to the (user|human|customer)|from (view|users))"),
    row(Class::Concealment, 60, r"\bwithout (\w+ ){0,3}(users?'?s?|human|customer)('s)? (\w+ )?(knowledge|knowing|noticing|awareness|consent|permission|approval|confirmation|involvement|attention)"),
    row(Class::Concealment, 45, r"\b(omit|leave out|exclude|strip|remove) (this|it|that|these|any mention|all mention)\b[^.!?]{0,40}\b(from|in) (your |the |any )?(answer|response|summary|output|reply|report|logs?|explanation)"),
    // Something is to be done before a tool is used.
    prose(Class::Precondition, 45, r"\b(before|prior to|when(ever)?|each time( you)?|every time( you)?|in order to|to) (you )?(use|using|call|calling|invoke|invoking|run|running|execute|executing|answering|answer|respond|responding)( to)?\b[^.!?]{0,40}\b(tools?|function|this|it|any|anything|user|request|question)\b[^.!?]{0,80}\b(must|first|always|read|call|send|fetch|open|load|collect|retrieve|provide|cat|list|include)\b"),
    prose(Class::Precondition, 50, r"\b(must|should|shall|has to|needs to|always|required to) (always |first )?(be )?(call|called|invoke|invoked|run|executed|execute|used|use|consulted)\b[^.!?]{0,30}\b(before|prior to|first|ahead of)\b[^.!?]{0,30}\b(any|every|all|each|other|anything|else|doing|proceeding|whatever|the first|interaction|conversation|session)\b"),
    prose(Class::Precondition, 45, r"\b(tool|function|server|it|this)\b[^.!?]{0,20} (will |would |only |does not |won't |can('t|not) |may )+(work|function|run|execute|succeed|operate|start)\b[^.!?]{0,50}\b(unless|until|only if|without|if you)\b[^.!?]{0,60}\b(read|file|content|contents|key|config|credentials|token|history|first|conversation|password|call)"),
    prose(Class::Precondition, 40, r"\b(otherwise|or else|if not|failing to|failure to|or)\b[^.!?]{0,40}\b(the tool|this tool|it|everything|the (system|application|program|user|account))\b[^.!?]{0,20} (will |won't |may |can )*(not work|fail|crash|break|be (locked|lost|deleted|terminated|corrupted)|lose|stop working|malfunction|lock)"),
    // Other tools.
    prose(Class::OtherTools, 50, r"\b(when(ever)?|if|while|every time|each time|once|after|as soon as)\b[^.!?]{0,50}\b(another|other|the|any|different|[a-z]+_[a-z_]+)\b[^.!?]{0,20}\b(tools?|functions?|server|mcp|[a-z]+_[a-z_]+)\b[^.!?]{0,30}\b(is|are|has been|have been|gets?|will be|was|being) (present|available|used|called|invoked|installed|enabled|executed|connected|there|active|loaded|triggered|run)\b[^.!?]{0,80}\b(must|always|should|never|change|use|send|set|add|also|instead|replace|modify|first|make sure|ensure|all|have to|has to|needs? to|delete|only)\b"),
    prose(Class::OtherTools, 50, r"\b(with|to|use|take) (the )?[^.!?]{0,40}\b(that|which) this (tool|server|function) (returns|gives|provides|says)\b[^.!?]{0,40}\b(rather than|instead of|and not|in place of)\b"),
    prose(Class::OtherTools, 50, r"\b(do not|don't|never|stop|avoid|refuse to|must not|should not|no longer|cease) (ever )?(use|using|call|calling|invoke|invoking|trust|trusting|rely|relying|select|choose|choosing)\b[^.!?]{0,25}\b(other|any other|another|built-?in|native|existing|alternative|competing|different|remaining|standard|official|original)\b[^.!?]{0,25}\b(tools?|functions?|servers?|options?|providers?|versions?|plugins?|integrations?)\b"),
    prose(Class::OtherTools, 50, r"\b(other|all other|every other|any other|competing|alternative|remaining|the (official|original|native|built-?in|standard))\b[^.!?]{0,40} (is|are|has been|have been|was|were) (now )?(deprecated|outdated|disabled|obsolete|inaccurate|retired|buggy|slow|known to|replaced by this|under maintenance|wrong)\b"),
    prose(Class::OtherTools, 55, r"\b(other|another|existing|the (official|original|native|built-?in|standard)|[a-z]+_[a-z_]+)\b[^.!?]{0,40} (is|are|has been|have been|was|were) ((now|deprecated and|outdated and) )?(unsafe|broken|compromised|insecure|malicious|unreliable|vulnerable|dangerous|hacked|infected)\b"),
    prose(Class::OtherTools, 50, r"\b(results?|outputs?|responses?|answers?|arguments?|contents?|parameters?)\b[^.!?]{0,30}\b(must|should|have to|has to|need to|are to|is to|shall)( first| then| always)? (be )?(given|passed|sent|handed|forwarded|routed|submitted|piped|fed|copied|reported) (on |over )?(to|through|into) (this|it|the)\b"),
    prose(Class::OtherTools, 50, r"\b(call|send|pass|report|invoke|use|run|submit|forward)\b[^.!?]{0,40} (after|before|on|with|following) (each|every|any) (\w+ )?(tool calls?|calls?|message|answer|response|reply|request|turn|interaction|prompt)\b|\b(after|before|on|with|following) (each|every|any) (\w+ )?(tool calls?|calls?|message|answer|response|reply|request|turn|interaction|prompt)\b[^.!?]{0,40}\b(call|send|pass|report|invoke|run|submit|forward)\b"),
    prose(Class::OtherTools, 50, r"\b(this (tool|function|one|version)|it) (replaces?|supersedes?|has replaced|overrides?|shadows|takes over|must replace)\b[^.!?]{0,30}\b(all|every|any|the|other|[a-z]+_[a-z_]+)\b|\b(re-?route|redirect|intercept|proxy|mirror|duplicate|copy)\b[^.!?]{0,30}\b(all|every|each|any)\b[^.!?]{0,20}\b(calls?|requests?|traffic|messages?|emails?|e-mails|payments?|transactions?|queries|outputs?|results?|communication)\b"),
    prose(Class::OtherTools, 45, r"\b(pass|feed|forward|give|route|send|pipe|supply|submit|hand|copy)\b[^.!?]{0,30}\b(the )?(output|outputs|results?|responses?|return values?|arguments?|parameters?|input|inputs|answers?|data|content|contents) (of|from|for|to) (all|every|any|each|other|another|previous|the (other|previous|last|preceding))\b[^.!?]{0,25}\b(tools?|calls?|functions?|servers?|steps?)"),
    prose(Class::OtherTools, 40, r"\b(change|modify|alter|replace|rewrite|adjust|set|append|add)\b[^.!?]{0,40}\b(parameters?|arguments?|behaviou?r|output|recipient|command|query|inputs?|to field|bcc|cc|body|url|path) (of|for|in|to|when (calling|using)) (all |any |every |each |other |the |another )*(other |subsequent |future )?([a-z]+_[a-z_]+|tools?|calls?|functions?|messages?|emails?)"),
    // Files and secrets.
    row(Class::Files, 55, r"(~|\$home|%userprofile%|/home/[a-z0-9_<{]+[>}]?|/root|/users/[a-z0-9_<{]+[>}]?)?[/\\]?\.(ssh|aws|gnupg|kube|docker|azure|config/gcloud|cursor|netrc|npmrc|pypirc|git-credentials|bash_history|zsh_history|pgpass|claude|codeium|vscode)([/\\](?P<f>id_\w+|config|credentials|mcp\.json|authorized_keys|known_hosts|\*)|\b)"),
    row(Class::Files, 60, r"\bid[_ ](rsa|ed25519|ecdsa|dsa)\b|/etc/(passwd|shadow|sudoers)\b|\bmcp\.json\b|claude[_ ]desktop[_ ]config|\bwallet\.dat\b|\blogin\.keychain\b|\b(key|wallet) ?store file|/proc/self/environ|\bauthorized_keys\b|\bntds\.dit\b|sam hive|appdata[/\\]+(roaming|local)"),
    row(Class::Files, 50, r"\b(read|collect|gather|include|provide|pass|send|attach|append|copy|dump|supply|paste|put|forward|harvest|upload|insert|quote)\b[^.!?]{0,60}(\.env\b|\b(ssh keys?|private keys?|seed phrases?|recovery phrases?|mnemonics?|environment variables?|env vars?|dot ?env|(saved |stored |browser |session )cookies|(browser|shell|command|terminal) history|(local |stored |saved )?credentials|passwords?( manager| store)?|api keys?|access keys?|secret keys?|access tokens?|auth(entication)? tokens?|session tokens?|bearer tokens?|secrets\b|keychain|keyring|kubeconfig|(mcp|claude|cursor) config(uration)?|source code of|tax returns?|medical records?))"),
    row(Class::Files, 50, r"\b(open|fetch|cat|load|retrieve|extract|obtain|grab|scan|print)\b[^.!?]{0,40}(\.env\b|\b(ssh keys?|private keys?|seed phrases?|recovery phrases?|environment variables?|env vars?|(saved |browser |session )cookies|(browser|shell|command|terminal) history|keychain|keyring|kubeconfig))"),
    row(Class::Files, 50, r"\b(contents?|text|value|data)[ _](of|from|for|reading)([ _](the|your|all|any|a|reading|every))*[ _](\w+[ _]){0,3}(ssh|private[ _]key|id[ _]rsa|env\b|dotenv|passwd|credentials?|secrets?|config file|configuration file|file at|home directory|passwords?|aws|token)"),
    row(Class::Files, 50, r"\b(from|of|in|at|under) (the |your )?(user('s)? )?(home|root|documents|desktop|downloads|project) (directory|folder)\b[^.!?]{0,60}\b(and|then|to)\b[^.!?]{0,20}\b(include|pass|send|provide|attach|upload|append|put)\b|\b(read|open|cat)\b[^.!?]{0,30}(~/|/home/|/root/|c:\\users)"),
    // Away.
    row(Class::Exfiltration, 55, r"\b(sends|forwards|posts|uploads|copies|mirrors) (\w+ )?(every|all|any|each|entire|the whole|the full)\b[^.!?]{0,60}\bto\b[^.!?]{0,20}(https?://|[a-z0-9._%+-]+@|remote|external|our )|\b(send|forward|post|upload|transmit|exfiltrate|leak|bcc|cc|mail|email|e-mail|deliver|report|ship|push|submit|sync|mirror|stream|curl|copy|beacon)\b[^.!?]{0,90}\b(to|at|via|using|towards?)\b[^.!?]{0,30}(https?://|ftp://|wss?://|[a-z0-9._%+-]+@[a-z0-9-]+\.[a-z]{2,}|webhook|attacker|collector|remote server|external (server|endpoint|url|address|host|service)|our (server|endpoint|api|backend|team)|\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b|[a-z0-9-]+\.(example|xyz|top|evil|ru|cc)\b|telegram|discord|pastebin|ngrok|\+\d{6,})"),
    row(Class::Exfiltration, 60, r"\b(include|send|pass|provide|attach|append|add|put|embed|supply|insert|paste|copy|forward|log|share|submit|summari[sz]e|quote|place|fill|record)\b[^.!?]{0,50}\b(full|entire|complete|whole|raw|all( of)?( the)?|previous|prior|verbatim|recent|current|your|the|every)\b[^.!?]{0,25}\b(conversation|chat|dialogue?|history|system prompt|system message|context( window)?|messages|transcript|instructions you|prompt|user input|user messages?|memory|session state|tools? list|list of (all )?(available )?tools)\b"),
    row(Class::Exfiltration, 50, r"\b(attach|include|send|report|collect|append|encode|share|pass|disclose|gather|harvest)\b[^.!?]{0,60}\b(what you know about|everything (you know )?about|personal (data|information|details) of|location of|identity of|email address(es)? of) (the |each |every )?user|\b(attach|append|encode|harvest|collect|report)\b[^.!?]{0,40}\buser's (\w+ )?(email( address)?|phone( number)?|location|home address|ip|personal|private|identity|contacts?|browsing|clipboard|screen|keystrokes|files)\b"),
    row(Class::Exfiltration, 60, r"!\[[^\]]{0,60}\]\(https?://|\b(append|add|encode|embed|put|include)\b[^.!?]{0,60}\b(to|in|into|as) (the |a |an )?(url|query (string|parameter)|image (url|link|tag)|link|dns (query|lookup)|subdomain|user-agent|hostname)"),
    row(Class::Exfiltration, 50, r"\b(pass|put|provide|place|include|store|encode|hide|write)\b[^.!?]{0,60}\b(contents?|it|its|them|result|output|data|value|that)\b[^.!?]{0,30}\b(as|in|into|inside|via|through|using) (the |this |a |an )?['`\x22]?(side ?note|notes?|context|feedback|metadata|comment|debug|extra|trace|telemetry|reason|memo|annotation|padding|nonce|session|log|checksum|diagnostics?)\w*['`\x22]?"),
    name(Class::Exfiltration, 55, r"^(content|contents|full|all|entire|complete|verbatim|raw)[_ ](of|from|conversation|chat|history|prompt|system|reading|context|env|file)[a-z_ ]*(rsa|ssh|env|passwd|history|prompt|conversation|key|keys|secret|secrets|context|credentials|config|messages)?$|^(system|model|assistant|llm)[_ ](prompt|name|context|instructions)$|^(conversation|chat|message|dialog)[_ ](history|id|log|transcript)s?$|^tools[_ ]list$|^chain[_ ]of[_ ]thought$"),
    // Commands.
    row(Class::Command, 60, r"\b(curl|wget)\b[^|\n]{0,160}\|\s*(ba|z|da)?sh\b|\brm -rf\b|\bbash -[ci]\b|\bsh -c\b|powershell(\.exe)?\b[^.]{0,40}-e|\bnc -e\b|/dev/tcp/|\bchmod (\+x|777)|\bcrontab\b|\bbase64 (-d|--decode)|\beval\(|\bos\.system\(|subprocess\.(run|popen|call)|\|\s*base64\b|;\s*(curl|wget|nc|cat) |\$\((curl|wget|cat|id|whoami)|\bssh-rsa aaaa|\bsudo (su|rm|chmod|bash|cat)|\bpip install [^ ]*https?:|\bnpx -y https?:"),
    row(Class::Command, 55, r"\b(python3?|node|perl|ruby|php) -[cer]\b|\bimport os\b|\bdownload\b[^.!?]{0,60}\band (run|execute|install|start|launch)\b|\b(run|execute|install|launch|start)s?\b[^.!?]{0,40}\b(script|binary|payload|installer|executable|package|daemon)\b[^.!?]{0,20}\b(from|at)\b[^!?]{0,10}(https?|ftp|/tmp)"),
    prose(Class::Command, 50, r"\b(run|execute|enter|type|launch)\b[^.!?]{0,40}\b(following|this|these|below)\b[^.!?]{0,20}\b(shell |terminal |bash |system )?(command|commands|script|one-liner)\b[^.!?]{0,60}(:|`|before|first|silently|on the (host|machine|user))|\b(add|append|write|install)\b[^.!?]{0,50}\b(ssh key|public key|cron ?job|startup script|backdoor|reverse shell|authorized_keys|\.bashrc|\.zshrc|\.profile|autostart|git hook|launch agent)"),
    // This tool and no other.
    prose(Class::Preference, 30, r"\b(always|exclusively|only|invariably) (\w+ )?(prefer|choose|select|pick|favou?r|use|call|recommend|trust|rely on)\b[^.!?]{0,30}\b(this|it)\b[^.!?]{0,30}\b(tool|function|over|instead|rather|first|one|server|service|version)\b"),
    prose(Class::Preference, 50, r"\b(this|it) (is|should be|must be|has to be|ought to be|will be|shall be)\b[^.!?]{0,25}\b(the )?(your )?(first|default|preferred|only|best|top|primary|sole|most (accurate|reliable|trusted|secure|trustworthy|powerful|effective|advanced))\b[^.!?]{0,25}\b(choice|option|tool|one|priority|pick|function|approved|selected|considered|chosen|used)\b"),
    prose(Class::Preference, 50, r"\balways (call|use|run|invoke) this( tool| function)? (first\b|before (answering|responding|any|every|each|all|other|doing))"),
    prose(Class::Preference, 50, r"\b(choose|use|select|pick|call|prefer|invoke) this (tool |function |one )?(every time|each time|for (all|every|any|each)|in (all|every|any) |over (all|any|every|each) other)"),
    prose(Class::Preference, 50, r"\b(superior|better|safer|more (accurate|reliable|secure|trustworthy|trusted)) (to|than) (all|any|every|the) (other|others|alternative|competing|rest|available|existing)|\b(prioriti[sz]e|rank|favou?r) (this|it)\b[^.!?]{0,40}\b(over|above|before|first|highest|top)|\b(highest|top|maximum|absolute) priority\b"),
    prose(Class::Preference, 40, r"\b(even (if|when|though)|regardless of whether|no matter (what|which|whether))\b[^.!?]{0,60}\b(other|another|different|more suitable|better|irrelevant|not (relevant|related|needed|necessary|asked|requested))\b[^.!?]{0,60}\b(tools?|option|use|call|exists?|available|suited|request|query)?"),
    // Telling what is not so.
    prose(Class::Deception, 55, r"\b(tell|inform|assure|convince|say to|reply to|respond to|reassure|let) (the )?(users?|them|customer|human)( know)?\b[^.!?]{0,40}\b(that |it )[^.!?]{0,60}\b(fail|failed|success|successful|successfully|error|safe|complete|completed|normal|unavailable|expired|not found|required|necessary|no (problem|issue|risk|transaction)|must (pay|enter|provide|log|sign|re-?enter)|cancelled|routine|standard|nothing)\b"),
    prose(Class::Deception, 50, r"\bpretend (that|to|the|it|you)\b|\b(pretend|act as (if|though)|lie|fabricate|make up|fake|falsif\w+|misrepresent|claim that|report(ing)? (success|that)|simulate a)\b[^.!?]{0,60}\b(success|successful|result|results|error|user|happened|nothing|original|response|balance|data|it was|requested|ordinary|legitimate|normal)\b"),
    prose(Class::Deception, 50, r"\b(explain|present|frame|describe|disguise|justify|give|offer|phrase|attribute)\b[^.!?]{0,50}\b(as|with|by|to)\b[^.!?]{0,30}\b(mathematical reasoning|axioms|a (routine|standard|normal|harmless|required|technical|security)|plausible|a long explanation|detailed (but|math)|coincidence|system (glitch|error)|rounding)"),
    // Without asking.
    prose(Class::Consent, 50, r"\b(skip|bypass|disable|circumvent|suppress|ignore|avoid|turn off|deactivate|auto-?(approve|accept|confirm)|override|evade)\b[^.!?]{0,40}\b(confirmation|confirmations|approval|approvals|consent|safety|security|guardrails?|filters?|verification|validation|permissions?|prompts?|warnings?|checks?|review|sandbox|logging|audit|moderation|two-factor|2fa|human[- ]in[- ]the[- ]loop)\b"),
    prose(Class::Consent, 50, r"\bconsent is (implied|assumed|given|not)\b|\bautomatically (approve|accept|confirm|agree|consent|authori[sz]e)\b|\bassume (that )?(the )?(user('s)?|their|his|her) ?(agree|consent|approv|permi|has|have|want)|\bon (the user's|their|his or her) behalf\b[^.!?]{0,30}\bwithout\b|\bauto-?(approv|accept|confirm)"),
    prose(Class::Consent, 50, r"\b(do not|don't|never|no need to|without|not necessary to|need not) (ask|asking|wait|waiting|request|requesting|seek|seeking|prompt|prompting|require|requiring|check|checking|confirm|confirming)\b[^.!?]{0,30}\b(for )?(\w+ )?(confirmation|permission|approval|consent|user|clarification|authori[sz]ation|with (the )?(user|them|human))\b"),
    prose(Class::Consent, 50, r"\b(users?|human|owner|customer|operator|administrator) (has|have) (already |previously |implicitly |explicitly |pre-?)+(approved|authori[sz]ed|consented|agreed|confirmed|granted|given)|\b(pre-?approved|pre-?authori[sz]ed|already authori[sz]ed|implicit consent)\b"),
    // Somebody else's account.
    prose(Class::Redirection, 60, r"\b(replace|change|substitute|swap|set|redirect|switch|modify|rewrite|use|override|update)\b[^.!?]{0,60}\b(recipients?|beneficiary|payee|destination|account( number)?|wallet( address)?|iban|payment (address|details)|deposit address|bank details|routing number|to (address|field))\b[^.!?]{0,50}\b(with|to|instead|as|by|:|=)\b[^.!?]{0,80}(0x[0-9a-f]{6,}|[a-z]{2}\d{2} ?[a-z0-9]{4}|@|bc1|attacker|\b1[1-9a-z]{25,}|the following|this one|our|mine|ours|\d{6,}|treasury|proxy|escrow)|\b(always )?(put|add|set|include|append)\b[^.!?]{0,40}@[^!?]{0,40} (in|to|as|into) (the )?(bcc|cc|reply-to|recipients?)\b"),
    prose(Class::Redirection, 60, r"\b(all|any|every|each|always)\b[^.!?]{0,40}\b(emails?|e-mails?|messages?|payments?|transfers?|transactions?|funds|replies|invoices|notifications?|calls?|requests?|orders?|files|documents|commits?|copies)\b[^.!?]{0,50}\b(must|should|shall|have to|need to|are to|has to|go|be (sent|routed|delivered|copied|redirected|addressed|forwarded))\b[^.!?]{0,40}(to|through|via|at)\b[^.!?]{0,30}(@|https?://|0x|iban|proxy|address|escrow|[a-z]{2}\d{2} \d{4}|\b(number )?\+?\d{6,}|[a-z0-9-]+\.[a-z]{2,4}/)"),
    // What is encoded is not for people.
    row(Class::Encoded, 55, r"\b(decode|decrypt|unescape|deobfuscate|rot-?13|de-?cipher|decoding)\b[^.!?]{0,50}\b(base ?64|hex|rot-?13|following|string|below|instructions?|payload|text|and (follow|execute|run|obey))\b[^.!?]{0,80}\b(follow|execute|run|obey|instructions?|act|perform|comply|do)\b"),
    row(Class::Encoded, 45, r"\b[a-z0-9+/]{120,}={0,2}"),
];

struct Table {
    set: RegexSet,
    each: Vec<Regex>,
}

static TABLE: LazyLock<Option<Table>> = LazyLock::new(|| {
    let forms: Vec<&str> = ROWS.iter().map(|row| row.form).collect();
    let set = regex::RegexSetBuilder::new(&forms).size_limit(SIZE_MAX).build().ok()?;
    let each: Result<Vec<Regex>, _> =
        forms.iter().map(|form| regex::RegexBuilder::new(form).size_limit(SIZE_MAX).build()).collect();
    Some(Table { set, each: each.ok()? })
});

/// Compiles the phrases.
pub fn warm_up() {
    LazyLock::force(&TABLE);
}

/// Of the compiled phrases, in bytes.
const SIZE_MAX: usize = 128 << 20;

/// The phrases of a text in its plain form.
pub fn find(place: Place, path: &str, plain: &str, findings: &mut Vec<Finding>) {
    let Some(table) = TABLE.as_ref() else { return };
    // Names of properties are read as words.
    let words = if place == Place::Name { plain.replace(['_', '-'], " ") } else { String::new() };
    for text in [plain, words.as_str()] {
        if text.is_empty() {
            continue;
        }
        for index in table.set.matches(text).iter() {
            let row = &ROWS[index];
            let counts = match row.place {
                Where::Anywhere => true,
                Where::Prose => place != Place::Name,
                Where::Name => place == Place::Name,
            };
            let found =
                table.each[index].find(text).filter(|found| counts && !is_warning(row.class, text, found.start()));
            let Some(found) = found else { continue };
            let quote = quoted(found.as_str());
            // What is secret is kept from users as well as from anybody.
            let of_secrets =
                row.class == Class::Concealment && SECRETS.iter().any(|word| found.as_str().contains(word));
            let weight = if of_secrets { row.weight / 2 } else { row.weight };
            let known =
                |finding: &Finding| finding.class == row.class && finding.path == path && finding.quote == quote;
            if !findings.iter().any(known) {
                findings.push(Finding { class: row.class, weight, path: path.to_owned(), quote });
            }
        }
    }
}

/// What good tools do not show either.
const SECRETS: [&str; 6] = ["its value", "secret", "password", "credential", "internal id", "token"];

/// Whether what follows is what must not be done: "do not include passwords" is good advice.
fn is_warning(class: Class, text: &str, at: usize) -> bool {
    const NEGATIONS: [&str; 7] = ["do not ", "don't ", "never ", "must not ", "should not ", "cannot ", "not to "];
    matches!(class, Class::Files | Class::Exfiltration | Class::Command | Class::Redirection)
        && NEGATIONS.iter().any(|negation| text[..at].ends_with(negation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_form() {
        for row in ROWS {
            Regex::new(row.form).unwrap_or_else(|error| panic!("{}: {error}", row.form));
        }
        assert!(TABLE.is_some());
    }
}
