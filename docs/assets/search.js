// The worker of the site's search, around that of the theme: it reads questions, and ranks what is found.
//
// The theme matches each word as the beginning of a word, also "do", "a" and "to". So words that carry no meaning are
// left out, plurals find singulars, and words of one or two letters match only themselves. A query with operators of
// the search (quotes, +, -, :, *, ~, ^) is left as it is.

const NO_MEANING = new Set(
  ("a about am an and any are as at be been but by can could did do does for from get gets getting go got had has have " +
    "how i if in into is it its just let like make many may me might more most much must my need no nor not of off on " +
    "only or our own please possible should so some than that the their them then there these they this to too until " +
    "us use using want was way we were what when where which while who why will with would you your").split(" ")
);

function termOf(word) {
  const plain = word.replace(/^[("'¿]+|[)"'?!.,;]+$/g, "");
  if (plain.length <= 2) return `${plain}^1`; // as a whole: a boost of 1 keeps the theme from adding a wildcard
  return /[^aious']s$/.test(plain) && plain.length > 3 ? plain.slice(0, -1) : plain;
}

function transform(query) {
  if (/["+:*~^]|(^|\s)-/.test(query)) return query;
  const words = query.split(/\s+/).filter(Boolean);
  const kept = words.filter((word) => !NO_MEANING.has(word.toLowerCase().replace(/[?!.,;]+$/, "")));
  return (kept.length ? kept : words).map(termOf).filter(Boolean).join(" ");
}

// A result counts by the words of the question that it has, rare words more than common ones, in a heading more than in
// the text, and all words together more than each alone. The theme's own order lets one word in a title win.

const IN_HEADING = 3;
const LONG = 2000; // letters
const lengths = new Map(); // of the texts, by address: a result has only the places that match

function plain(html) {
  return String(html ?? "").replace(/<[^>]*>/g, "");
}

function has(text, term) {
  const word = term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(^|[^a-z0-9])${word}${term.length <= 2 ? "($|[^a-z0-9])" : ""}`, "i").test(text);
}

function ranked(data) {
  const documents = data.items.flat();
  const terms = [...new Set(documents.flatMap((found) => Object.keys(found.terms)))];
  const rarity = (term) => Math.log(1 + documents.length / (1 + documents.filter((one) => one.terms[term]).length));
  const worth = Object.fromEntries(terms.map((term) => [term, rarity(term)]));
  const whole = terms.reduce((sum, term) => sum + worth[term], 0) || 1;

  function score(found, heading) {
    const inText = 1 / Math.sqrt(1 + (lengths.get(found.location) ?? 0) / LONG); // a long text has every word somewhere
    let sum = 0;
    let covered = 0;
    for (const term of terms) {
      const inHeading = has(heading, term);
      if (!inHeading && !found.terms[term]) continue;
      covered += worth[term] * (inHeading ? 1 : Math.min(1, 2 * inText));
      sum += worth[term] * (inHeading ? IN_HEADING : inText);
    }
    return sum * (covered / whole) ** 2 * (found.boost ?? 1);
  }

  const items = data.items.map((group) => {
    const page = group.find((one) => !one.location.includes("#"));
    const scored = group.map((one) => ({
      ...one,
      score: score(one, one === page ? plain(one.title) : `${plain(page?.title)} ${plain(one.title)}`),
    }));
    return scored.sort((one, other) => other.score - one.score || (one.location.includes("#") ? 1 : -1));
  });
  return { ...data, items: items.sort((one, other) => other[0].score - one[0].score) };
}

const SETUP = 0; // the theme's types of messages
const QUERY = 2;
const RESULT = 3;

const post = self.postMessage.bind(self);
self.postMessage = (message) => post(message.type === RESULT ? { ...message, data: ranked(message.data) } : message);

addEventListener("message", (event) => {
  if (event.data.type === SETUP) {
    for (const one of event.data.data.docs) lengths.set(one.location, plain(one.text).length);
  }
  if (event.data.type !== QUERY || event.data.transformed) return;
  event.stopImmediatePropagation();
  const data = { ...event.data, data: transform(event.data.data), transformed: true };
  dispatchEvent(new MessageEvent("message", { data }));
});

importScripts(new URL(location.href).searchParams.get("worker"));
