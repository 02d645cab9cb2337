<?php

declare(strict_types=1);

namespace Longline;

use Psr\Http\Client\ClientExceptionInterface;
use Psr\Http\Client\ClientInterface;
use Psr\Http\Message\RequestFactoryInterface;
use Psr\Http\Message\StreamFactoryInterface;

/** Carries requests by a PSR-18 client. How long it waits is its own setting: more than a pull does. */
final class PsrTransport implements Transport
{
    public function __construct(
        private readonly ClientInterface $client,
        private readonly RequestFactoryInterface $requests,
        private readonly StreamFactoryInterface $streams,
    ) {
    }

    public function send(string $method, string $url, array $headers, ?string $body, float $timeout): Answer
    {
        $request = $this->requests->createRequest($method, $url);
        foreach ($headers as $name => $value) {
            $request = $request->withHeader($name, $value);
        }
        if ($body !== null) {
            $request = $request->withBody($this->streams->createStream($body));
        }
        try {
            $response = $this->client->sendRequest($request);
        } catch (ClientExceptionInterface $failed) {
            throw LonglineException::connection($failed->getMessage(), $headers['x-request-id'] ?? '', $failed);
        }
        $got = [];
        foreach ($response->getHeaders() as $name => $values) {
            $got[strtolower((string) $name)] = implode(', ', $values);
        }
        return new Answer($response->getStatusCode(), $got, (string) $response->getBody());
    }
}
