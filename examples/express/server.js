// An Express application that publishes what happens in it, and is called back.
import express from 'express';
import { Longline, Reject, nodeCallback } from 'longline';

const line = new Longline(process.env.LONGLINE_URL, { token: process.env.LONGLINE_TOKEN });
const app = express();

// Before express.json(): what is signed are the bytes.
app.post('/longline', nodeCallback(({ subject, type }) => {
  if (!subject) throw new Reject('whose contact is this?');
  console.log(`${subject}: ${type}`);
}, process.env.LONGLINE_CALLBACK_SECRET));

app.use(express.json());

app.post('/orders', async (request, response) => {
  const { email, total } = request.body;
  const { cursor } = await line.publish('acct-42', { type: 'order.placed', subject: email, partitionkey: email, data: { total } });
  response.status(202).json({ cursor }); // from now on the event is durable
});

const server = app.listen(process.env.PORT ?? 8000, '127.0.0.1');
process.once('SIGTERM', () => server.close());
