// Notes every event of a subscription, as a CRM's integration would.
import { Longline, Reject } from 'longline';

const line = new Longline(process.env.LONGLINE_URL, { token: process.env.LONGLINE_TOKEN });
await line.subscriptions.create('example-js', { channels: ['acct-42'], types: ['email.*'], start: 'earliest' });

const subscription = line.attach('example-js', async ({ subject, type, data }) => {
  if (!subject) throw new Reject('whose contact is this?');
  console.log(`${subject}: ${type} ${JSON.stringify(data)}`);
}, { concurrency: 8 });

process.once('SIGTERM', () => subscription.close()); // acknowledges what is done
await subscription.closed;
