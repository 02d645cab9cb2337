// A process with the SDK: its handler fails now and then and is slow now and
// then. What it is given and told it prints, a line of JSON each: an event before
// its handler runs, and when it is done.
import { Longline } from '../../../client/js/src/index.js';

const [url, name, consumer] = process.argv.slice(2);
const line = new Longline(url, { token: process.env.TOKEN, warn: () => {}, backoff: { min: 50, max: 1000 } });
const say = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);

const subscription = line.attach(name, async (event, { attempt, redelivered }) => {
  const { id, type, partitionkey, cursor } = event;
  say({ id, type, partitionkey, cursor, announced: redelivered || attempt > 1 });
  const dice = Math.random();
  if (dice < 0.0025) throw new Error('the handler fails');
  if (dice < 0.005) await new Promise((resolve) => { setTimeout(resolve, 1000); });
  say({ done: id });
}, {
  consumer, concurrency: 4, remember: 1, onGap: ({ from, to }) => say({ from, to }),
});
subscription.closed.catch((error) => { say({ broken: `${error}` }); process.exitCode = 1; });
