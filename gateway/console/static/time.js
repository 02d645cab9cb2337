// What time it is at the gateway. The browser's clock may be wrong, and all times
// that are shown are the gateway's.

let ahead = 0; // ms that the gateway's clock is ahead of the browser's

/** Hears the Date of an answer, which is to the second. */
export function heard(date) {
  const off = Date.parse(date) + 500 - Date.now();
  if (!Number.isNaN(off)) ahead = Math.abs(off) > 2000 ? off : 0;
}

/** Now, in ms since 1970. */
export const now = () => Date.now() + ahead;

/** So many ms ago, as the API takes it. */
export const earlier = (ms) => new Date(now() - ms).toISOString();
