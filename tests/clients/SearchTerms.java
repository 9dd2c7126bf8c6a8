import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Java's HttpClient: asks for a persisted query with each term from standard input. Each term ends with a NUL. The
 * only argument is the URL up to the value.
 */
final class SearchTerms {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var terms = new String(System.in.readAllBytes(), UTF_8).split("\0", -1);
        for (int at = 0; at < terms.length - 1; at++) {
            var value = URLEncoder.encode(terms[at], UTF_8).replace("+", "%20");
            var request = HttpRequest.newBuilder(URI.create(arguments[0] + value)).build();
            var response = client.send(request, BodyHandlers.ofString());
            if (response.statusCode() != 200) {
                throw new IllegalStateException(response.statusCode() + ": " + response.body());
            }
            System.out.write((response.body() + "\n").getBytes(UTF_8));
        }
        System.out.flush();
    }
}
