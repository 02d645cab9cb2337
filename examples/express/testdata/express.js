// As much of Express as the example uses, for its test: what it hands on are
// node:http's own requests and responses, as Express's are.
import { createServer } from 'node:http';

export default function express() {
  const steps = [];
  return {
    use: (step) => steps.push({ step }),
    post: (path, step) => steps.push({ path, step }),
    listen(port, host) {
      return createServer(async (request, response) => {
        response.status = (code) => Object.assign(response, { statusCode: code });
        response.json = (value) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
        for (const { path, step } of steps) {
          if (path && (path !== request.url || request.method !== 'POST')) continue;
          if (path) return step(request, response);
          await new Promise((next) => step(request, response, next));
        }
        response.status(404).end();
      }).listen(port, host);
    },
  };
}

express.json = () => async (request, response, next) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  request.body = JSON.parse(Buffer.concat(pieces));
  next();
};
